"""What `circuits specificity`, `circuits stability` and `circuits sufficiency` print."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from circuits.cli.rerun_tables import with_interval
from circuits.cli.tables import console, say
from circuits.render.words import counted
from hooked_qwen.percents import percent


def specificity_table(record: Mapping[str, Any]) -> None:
    """The matrix, and for each task its own circuit beside the others'."""
    tasks = record["tasks"]
    strongest = counted(record["size"], "strongest feature")
    say(f"share of a task lost with the {strongest} of a circuit cut (1: nothing is left)")
    table = _table("circuit", *tasks)
    for name, row in zip(record["rows"], record["lost"], strict=True):
        table.add_row(name, *(_two(cell["value"]) for cell in row))
    console.print(table)
    table = _table("task", "its own", "the others", "the worst of them", "own less others")
    for name, task in tasks.items():
        table.add_row(
            name,
            with_interval(task["own"], "{:.2f}".format),
            with_interval(task["others"], "{:.2f}".format),
            f"{_two(task['worst']['value'])} {task['worst']['circuit']}",
            with_interval(task["own_beyond_others"], "{:+.2f}".format),
        )
    console.print(table)
    shared = max(record["overlap"], key=lambda row: row["jaccard"])
    say(
        f"circuits share at most {counted(shared['shared'], 'feature')} of {record['size']} "
        f"({' and '.join(shared['circuits'])}, Jaccard {shared['jaccard']:.2f})"
    )


def stability_table(record: Mapping[str, Any]) -> None:
    """How much is found again, beside what the literature calls stable."""
    threshold, nodes, reruns = record["threshold"], record["nodes"], record["reruns"]
    say(
        f"the {record['size']} strongest nodes on {record['resamples']} draws of "
        f"{counted(record['n_prompts'], 'prompt')} (95 % of draws); stable is {threshold} and more"
    )
    table = _table("", "found again", "")
    rows = [
        ("nodes, Jaccard with the run's", nodes["jaccard"]),
        ("nodes, Jaccard between two draws", nodes["between_draws"]),
        ("effects, rank correlation", nodes["rank_correlation"]),
    ]
    if reruns["n"]:
        graphs = counted(reruns["n"], "graph") + " found anew"
        rows += [
            (f"nodes of {graphs}, Jaccard", reruns["nodes"]),
            (f"edges of {graphs}, Jaccard", reruns["edges"]),
        ]
    for name, figure in rows:
        value = figure["value"]
        verdict = "" if value is None else "stable" if value >= threshold else "not stable"
        table.add_row(name, with_interval(figure, "{:.2f}".format), verdict)
    for pair in record["estimators"]["pairs"]:
        table.add_row(
            f"nodes by {' and '.join(pair['estimators'])}, Jaccard",
            _two(pair["jaccard"]),
            "stable" if pair["jaccard"] >= threshold else "not stable",
        )
    console.print(table)
    for name, reason in record["estimators"]["skipped"].items():
        say(f"left out {name}: {reason}")
    rare = sorted((row for row in record["found"] if row["share"] < 0.5), key=lambda r: r["share"])
    if rare:
        listed = ", ".join(f"{row['id']} {percent(row['share'])}" for row in rare[:5])
        say(f"of the graph, on fewer than half of the draws: {len(rare)} ({listed})")


def sufficiency_table(record: Mapping[str, Any]) -> None:
    """The score by the number of kept features, a column for each row of the record."""
    scores = {field: f"{record[field]['score']:#.3g}" for field in ("model", "replaced", "nothing")}
    errors = "errors left out" if record["errors"] == "out" else "errors held"
    layers = counted(len(record["layers"]), "layer")
    say(
        f"{record['metric']} over {counted(record['n_prompts'], 'prompt')}: the model "
        f"{scores['model']}; MLPs of {layers} by transcoders, {errors}: {scores['replaced']}; "
        f"their features all set to {record['to']}: {scores['nothing']}"
    )
    table = _table("kept", *record["rows"])
    sizes = record["sizes"]
    for i, size in enumerate(sizes):
        done = 0 if i == 0 else sizes[i - 1]
        table.add_row(f"{size:,}", *(_score(row, i, done) for row in record["rows"].values()))
    console.print(table)


def _score(row: Mapping[str, Any], at: int, done: int) -> str:
    """A row's score at a size; nothing where all that it has were kept at the size before."""
    return f"{row['score'][at]:#.3g}" if done < row["nodes"] else ""


def _table(*columns: str) -> Table:
    return Table(
        Column(columns[0]),
        *(Column(name, justify="right") for name in columns[1:]),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _two(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"
