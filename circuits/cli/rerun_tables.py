"""What `circuits edit apply` prints: before and after, as tables and as marked text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.tables import console, say
from circuits.render.words import counted, readable
from hooked_qwen.percents import percent

SHOWN = 10
"Prompts and tokens that are printed; result.json has them all."
STYLES = {"raised": "bold green", "lowered": "bold red"}
BRACKETS = {"raised": "↑", "lowered": "↓"}


def rerun_tables(record: Mapping[str, Any]) -> None:
    """Everything that was run again under an edit."""
    for line in record["edit"]:
        say(line)
    if prompts := record.get("prompts"):
        _prompts(prompts)
    if text := record.get("text"):
        _text(text)
    if written := record.get("generate"):
        _written(written)
    if effects := record.get("side_effects"):
        _side_effects(effects)
    if graph := record.get("graph"):
        _graph(graph)


def with_interval(figure: Mapping[str, Any], told: Callable[[float], str] = "{:.3f}".format) -> str:
    """A number with its 95 % interval."""
    if figure["value"] is None:
        return "–"
    value, ends = told(figure["value"] + 0.0), figure["interval"]
    return value if ends is None else f"{value} [{told(ends[0])}, {told(ends[1])}]"


def _table(*columns: str, first: str = "") -> Table:
    return Table(
        Column(first),
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _prompts(record: Mapping[str, Any]) -> None:
    say(
        f"{counted(record['n'], 'prompt')}, {record['metric']}: "
        f"{with_interval(record['before'])} before, {with_interval(record['after'])} after "
        f"(change {with_interval(record['change'], '{:+.3f}'.format)})"
    )
    say(
        f"right answer preferred: {with_interval(record['accuracy_before'], percent)} before, "
        f"{with_interval(record['accuracy_after'], percent)} after; KL of the next token "
        f"{with_interval(record['kl'])} nats"
    )
    if "attention" in record:
        told = f"attention {record['attention']}, MLPs {record['mlps']}"
        if "predicted" in record:
            change = with_interval(record["predicted"], "{:+.3f}".format)
            told += f"; with attention frozen and MLPs linear, as a graph predicts: {change}"
        say(told)
    table = _table("before", "after", "preferred", "likeliest", first="prompt")
    for row in record["prompts"][:SHOWN]:
        table.add_row(
            Text(row["clean"]),
            f"{row['before']:+.2f}",
            f"{row['after']:+.2f}",
            Text(_turned(row["preferred_before"], row["preferred_after"])),
            Text(_turned(row["likeliest_before"], row["likeliest_after"])),
        )
    console.print(table)
    _more(record["prompts"], "prompt")


def _text(record: Mapping[str, Any]) -> None:
    say(
        f"text of {counted(record['tokens'], 'token')}: cross-entropy "
        f"{with_interval(record['ce_before'])} nats before, {with_interval(record['ce_after'])} "
        f"after (change {with_interval(record['change'], '{:+.4f}'.format)})"
    )
    say(
        f"KL {with_interval(record['kl'], '{:.4f}'.format)} nats a token; the likeliest token "
        f"stays at {with_interval(record['same'], percent)} of them"
    )
    table = _table("next", "p before", "p after", "KL", "likeliest", first="where most changes")
    for row in record["most"][:SHOWN]:
        table.add_row(
            Text(readable(row["before"])),
            Text(repr(row["token"])),
            f"{row['p_before']:.3f}",
            f"{row['p_after']:.3f}",
            f"{row['kl']:.2f}",
            Text(_turned(row["likeliest_before"], row["likeliest_after"])),
        )
    console.print(table)


def _written(record: Mapping[str, Any]) -> None:
    for row in record["prompts"]:
        for when in ("before", "after"):
            line = Text(f"{when:>6}  ", style="dim")
            line.append(row["prompt"], style="default")
            for token in row[f"tokens_{when}"]:
                line.append_text(_marked(token))
            console.print(line, highlight=False, soft_wrap=True)
    say(f"↑ ↓: tokens whose odds the edit raises or lowers {record['mark']:g} times or more")


def _marked(token: Mapping[str, Any]) -> Text:
    """A token as it is, or with its probability before and after where that moved."""
    if token["mark"] is None:
        return Text(token["token"], style="not dim")
    moved = f"{BRACKETS[token['mark']]}{token['before']:.2f}→{token['after']:.2f}"
    return Text.assemble(
        (token["token"], f"not dim {STYLES[token['mark']]}"), (f"[{moved}]", "dim")
    )


def _side_effects(record: Mapping[str, Any]) -> None:
    """Behaviours by how far they moved, each control as the mean of its draws."""
    kinds = list(record["text"]["controls"])
    say(
        f"side effects: change of the logit difference as a share of clean less patch (-1: as if "
        f"swapped), KL in nats; controls are means of {record['draws']} draws"
    )
    letters = "abcdefgh"[: len(kinds)]
    table = _table("right, %", "share [95 %]", "KL", *letters, first="behaviour")
    for row in record["behaviours"]:
        accuracy = [row[f"accuracy_{when}"]["value"] for when in ("before", "after")]
        table.add_row(
            row["name"],
            f"{percent(accuracy[0])} → {percent(accuracy[1])}".replace("%", ""),
            with_interval(row["share"], "{:+.2f}".format),
            f"{round(row['kl']['value'], 3) + 0.0:.3f}",
            *(_share(row["controls"][kind]["share"]["value"]) for kind in kinds),
        )
    text = record["text"]
    table.add_row(
        f"text, {text['tokens']:,} tokens: cross-entropy",
        "",
        with_interval(text["change"], "{:+.3f}".format),
        f"{text['kl']['value']:.3f}",
        *(f"{text['controls'][kind]['change']['value']:+.3f}" for kind in kinds),
    )
    table.add_row(
        "  KL",
        "",
        with_interval(text["kl"], "{:.3f}".format),
        "",
        *(f"{text['controls'][kind]['kl']['value']:.3f}" for kind in kinds),
    )
    console.print(table)
    say("; ".join(f"{letter}: {kind}" for letter, kind in zip(letters, kinds, strict=True)))
    for name, reason in record["left_out"].items():
        say(f"left out {name}: {reason}")


STATUSES = {
    "only-a": "gone",
    "only-b": "new",
    "ablated": "pinned",
    "changed": "changed",
    "same": "the same",
}
"What a node of the graph is after the edit, by its status in the comparison."


def _graph(record: Mapping[str, Any]) -> None:
    """How the graph changed, and the nodes that changed most."""
    before, after = record["before"], record["after"]
    counts = ", ".join(f"{record['statuses'][name]} {said}" for name, said in STATUSES.items())
    say(
        f"graph: {before['nodes']} nodes and {before['edges']} edges before, {after['nodes']} and "
        f"{after['edges']} after; {counts}"
    )
    table = _table("effect before", "after", first="node")
    table.add_column("")
    table.add_column("", no_wrap=False)
    for row in record["most"][:SHOWN]:
        table.add_row(
            row["node"],
            _effect(row["effect_before"]),
            _effect(row["effect_after"]),
            STATUSES[row["status"]],
            Text(readable(row["label"] or "")),
        )
    console.print(table)


def _effect(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def _turned(before: str, after: str) -> str:
    return repr(before) if before == after else f"{before!r} → {after!r}"


def _more(rows: Sequence[Any], what: str) -> None:
    if len(rows) > SHOWN:
        say(f"and {counted(len(rows) - SHOWN, f'more {what}')} in result.json")
