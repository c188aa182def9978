"""What the commands print: small tables on the terminal."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.fitting import FittingConsole
from circuits.comparison import Difference
from circuits.discovery.verdicts import of_verification
from circuits.prompt_files import Prompt
from circuits.render.words import answers_in_words, caption, counted, readable, row_name, support
from hooked_qwen.families import Task
from hooked_qwen.percents import percent

if TYPE_CHECKING:
    from circuits.features.labels import Label
    from saes.edit_file import Edit

console = FittingConsole(width=None if sys.stdout.isatty() else 110, markup=False)
"What is printed is text of models and of users: brackets in it are no markup."
PRINTED_SIZES = (5, 10, 20, 50, 100, 200, 500)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _two(value: float | None) -> str:
    """Two decimals, no minus before a zero."""
    return "–" if value is None else f"{value:z.2f}"


def ends(interval: Sequence[float] | None) -> str:
    """Both ends of an interval, a dash where there is none."""
    return "–" if interval is None else f"{interval[0]:.2f}..{interval[1]:.2f}"


def discovery_summary(graph: nx.DiGraph) -> None:
    """What was measured and found, and what a reader should hear of it."""
    meta = graph.graph
    ends = f"mean {meta['metric']} {meta['clean_metric']:.2f}"
    if meta["patch_metric"] is not None:
        ends += f", patched {meta['patch_metric']:.2f}"
    if meta["accuracy"] is not None:
        ends += f", right answer preferred on {percent(meta['accuracy'])}"
    say(f"{counted(meta['n_prompts'], 'prompt')}, {ends}")
    for line in _prompts_used(meta):
        say(line)
    counts = Counter(data["kind"] for _, data in graph.nodes(data=True))
    nouns = {"feature": "feature", "error": "error", "token": "token", "logit": "output"}
    kinds = ", ".join(counted(counts[kind], noun) for kind, noun in nouns.items() if counts[kind])
    say(f"{counted(graph.number_of_nodes(), 'node')} ({kinds}), "
        f"{counted(graph.number_of_edges(), 'edge')}")  # fmt: skip
    for notice in meta["notices"]:
        say(f"note: {notice}", style="yellow")


def _prompts_used(meta: Mapping[str, Any]) -> list[str]:
    """Which prompts were left out, which tokens are measured, and how prompts are lined up."""
    lines = []
    if left_out := meta["prompts_left_out"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        lines.append(f"left out {counted(sum(left_out.values()), 'prompt')}: {reasons}")
    if answers := answers_in_words(meta):
        lines.append(f"answers {answers}")
    shortest, longest = meta["prompt_lengths"]
    if shortest != longest and meta["positions"] == "end":
        lines.append(
            f"prompts have {shortest} to {longest} tokens: positions are lined up at the last "
            "token (--positions end)"
        )
    return lines


def say(text: str, *, style: str | None = None) -> None:
    """Print a line as it is."""
    console.print(text, style=style, highlight=False)


def tasks_table(rows: Sequence[tuple[Task, Prompt | None]]) -> None:
    """Each task, what it asks, and one pair of it."""
    for task, example in rows:
        say(f"{task.name}  {task.description}", style="bold")
        if example is None:
            say("  too few of its words are one token to this model")
            continue
        for side, text, answers in (
            ("clean", example.clean, example.answer),
            ("patch", example.patch, example.wrong),
        ):
            say(f"  {side} {text!r} → {' / '.join(map(repr, answers))}")


def verification_table(record: Mapping[str, Any]) -> None:
    """How estimates and exact effects agree, and the faithfulness of circuits and controls."""
    nodes, curves = record["nodes"], record["curves"]
    compared = {
        f"{counted(nodes['n'], 'node')} on {counted(nodes['n_prompts'], 'prompt')}, "
        f"{record['estimator']} against exact (95 %)": nodes
    }
    pool = record.get("pool")
    if pool:
        compared[f"{counted(pool['n'], 'node')} chosen without {record['estimator']}"] = pool
    for name in ("strongest", "random"):
        if edges := record["edges"].get(name):
            against = "MLPs frozen" if "edge_modes" in record else "path patching"
            compared[f"{counted(edges['n'], f'{name} edge')} against {against}"] = edges
    for what, figures in compared.items():
        console.print(f"{what}: {_agreement(figures)}", highlight=False)
    if "node_modes" in record:
        console.print(_modes_table(record))
    shown = [i for i, size in enumerate(curves["sizes"]) if size in PRINTED_SIZES]
    table = Table(
        Column("faithfulness of this many", no_wrap=True),
        *(
            Column(name, justify="right", no_wrap=True)
            for name in (*(str(curves["sizes"][i]) for i in shown), "CPR", "CMD")
        ),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, row in curves["rows"].items():
        area = curves["areas"][name]
        values = [*(row["faithfulness"][i] for i in shown), area["cpr"], area["cmd"]]
        table.add_row(row_name(name), *map(_two, values))
    complete = curves["rows"]["circuit"]["completeness"]
    table.add_row("all but the strongest", *(_two(complete[i]) for i in shown))
    if held_out := record.get("held_out"):
        for name, row in held_out["rows"].items():
            values = dict(zip(held_out["sizes"], row["faithfulness"], strict=True))
            cells = [values.get(curves["sizes"][i]) for i in shown]
            table.add_row(f"{row_name(name)}, held out", *map(_two, cells))
    console.print(table)
    if pool and pool["missed"]:
        console.print(f"strong but not in the graph: {_missed(pool)}", highlight=False)
    adds = record["each_adds"]
    kept = _with_ends(adds["faithfulness"], adds["interval"])
    needed = sorted(adds["nodes"], key=lambda n: -n["adds"])[:3]
    lost = ", ".join(f"{n['id']} {_with_ends(n['adds'], n['interval'])}" for n in needed)
    say(
        f"the graph as it stands, its {counted(adds['circuit'], 'node')} connected: {kept}"
        + (f", of which most is lost without {lost}" if lost else "")
    )
    for verdict in of_verification(record):
        say(verdict, style="bold")


def _modes_table(record: Mapping[str, Any]) -> Table:
    """How a replacement graph's predictions agree with interventions, by what was held."""
    figures = ("spearman", "pearson", "slope", "sign_agreement", "weighted_sign_agreement")
    words = ("Spearman", "Pearson", "slope", "same sign", "weighted")
    table = Table(
        "predicted against",
        "attention",
        "MLPs",
        *(Column(word, justify="right") for word in words),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for what, part in (("nodes", "node_modes"), ("edges", "edge_modes")):
        for row in record[part]:
            told = f"{row['n']:,} {what}"
            table.add_row(told, row["attention"], row["mlps"], *(_two(row[f]) for f in figures))
    return table


def _missed(pool: Mapping[str, Any]) -> str:
    """The strongest nodes that a graph lacks, and whether estimate or rule left them out."""
    why = {"estimate": "by its estimate {estimate:.2f}", "rule": "on no path that is kept"}
    listed = [
        f"{row['id']} {row['exact']:.2f} ({why[row['by']].format(**row)})"
        for row in pool["missed"][:3]
    ]
    more = pool["missed_in_all"] - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _agreement(figures: Mapping[str, Any]) -> str:
    spearman, slope = (
        f"{name} {_with_ends(figures[name.lower()], figures['intervals'][name.lower()])}"
        for name in ("Spearman", "slope")
    )
    signs, zeros = figures["sign_agreement"], figures["zeros"]
    same = "–" if signs is None else percent(signs)
    return f"{spearman}, {slope}, same sign {same}" + (f" ({zeros} are zero)" if zeros else "")


def _with_ends(value: float | None, interval: Sequence[float] | None) -> str:
    return _two(value) if interval is None else f"{_two(value)} ({ends(interval)})"


def baked_summary(record: Mapping[str, Any]) -> None:
    """How an edit got into a model's folder, and how far that is from the hooked edit."""
    if record["how"] == "weights":
        say(f"in the weights: {', '.join(record['changed'])}")
        if where := record["exact_where_on"]:
            say(f"note: exact only where {', '.join(where)} are on", style="yellow")
    else:
        say(f"with a loader, load_edited.py: {record['why_no_weights']}")
    made = record["generated"]
    say(
        f"largest difference in logits to the hooked edit {record['largest_difference']:.1e} "
        f"({record['largest_difference_default_attention']:.1e} with transformers' default "
        f"attention), where the edit changes them by up to {record['largest_change']:.2f}, on "
        f"{counted(record['prompts'], 'prompt')}; the same {made['tokens']} tokens generated after "
        f"{made['same']} of {made['prompts']}"
    )


def edited_circuit_table(record: Mapping[str, Any]) -> None:
    """How faithful an edited graph is by its nodes, and by its nodes with its edges alone."""
    say(
        f"{counted(record['nodes'], 'node')}, {record['edges']:,} of "
        f"{counted(record['possible_edges'], 'edge')} that could lie between them; the rest "
        f"ablated to {record['baseline']}"
    )
    table = Table("faithfulness", "", "95 %", box=SIMPLE_HEAD, show_edge=False)
    for where, found in (("", record), (", held out", record.get("held_out"))):
        for name, row in (found or {"rows": {}})["rows"].items():
            told = f"{name}, as many" if name == "random edges" else name
            table.add_row(told + where, _two(row["faithfulness"]), ends(row["interval"]))
    console.print(table)
    if idle := record["edges_that_carry_nothing"]:
        named = ", ".join(f"{u} -> {d}" for u, d in idle[:3])
        say(f"note: no direct path joins {counted(len(idle), 'edge')}: {named}", style="yellow")
    for edge in sorted(record["each_edge"], key=lambda e: -abs(e["adds"]))[:5]:
        lost = _with_ends(edge["adds"], edge["interval"])
        say(f"without {edge['source']} -> {edge['target']} it loses {lost}")


def ablation_table(result: Mapping[str, Any]) -> None:
    """The metric before and after, beside the random controls."""
    table = Table("", "mean metric", "accuracy")
    table.add_row("before", _number(result["before"]), percent(result["accuracy_before"]))
    table.add_row("after", _number(result["after"]), percent(result["accuracy_after"]))
    for control in result["controls"]:
        table.add_row(
            control["name"], _number(control["after"]), percent(control["accuracy_after"])
        )
    console.print(table)


def labels_table(labels: "Mapping[str, Label]", *, shown: int) -> None:
    """What features are called, and by whom."""
    table = Table("feature", "label", "by", box=SIMPLE_HEAD, show_edge=False)
    for feature, label in list(labels.items())[:shown]:
        table.add_row(feature, Text(readable(label.text)), Text(readable(label.by)))
    console.print(table)
    if len(labels) > shown:
        say(f"and {counted(len(labels) - shown, 'more label')} (--rows)")


def edit_table(edit: "Edit", *, shown: int) -> None:
    """What an edit does in words, and its first operations row by row."""
    from saes.edit_words import in_words, rows

    for line in in_words(edit):
        say(line)
    if not shown:
        return
    table = Table("node", "what it does", "where", "when", box=SIMPLE_HEAD, show_edge=False)
    listed = rows(edit)
    for row in listed[:shown]:
        table.add_row(row.node, row.does, row.where, row.when)
    console.print(table)
    if len(listed) > shown:
        say(f"and {counted(len(listed) - shown, 'more operation')} (--rows)")


def comparison_table(
    rows: Sequence[Difference],
    names: tuple[str, str],
    graphs: tuple[nx.DiGraph, nx.DiGraph],
    *,
    shown: int,
) -> None:
    """How many nodes differ between two graphs, and the `shown` that differ most.

    Numbers are supports, as on the page.
    """
    words = {
        "only-a": f"only in {names[0]}",
        "only-b": f"only in {names[1]}",
        "ablated": "ablated in one",
        "changed": "changed",
        "same": "the same in both",
    }
    counts = {status: sum(row.status == status for row in rows) for status in words}
    console.print(
        f"{counted(len(rows), 'node')}: "
        + ", ".join(f"{counts[status]:,} {said}" for status, said in words.items()),
        highlight=False,
    )
    table = Table("node", "", "", *(f"support, {name}" for name in names), "change")
    for row in rows[:shown]:
        data = graphs[0 if row.b is None else 1].nodes[row.node]
        effects = (row.effect_a, row.effect_b, row.change)
        numbers = (_number(support(effect, graphs[1].graph)) for effect in effects)
        table.add_row(row.key, Text(caption(row.node, data)), words[row.status], *numbers)
    console.print(table)
    if len(rows) > shown:
        console.print(f"the {counted(shown, 'node')} that changed most", highlight=False)
    console.print("support: how much of the metric moving the node to its patch value takes away")
