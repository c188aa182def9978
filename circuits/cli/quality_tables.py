"""How good dictionaries are, as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from circuits.cli.tables import console, ends
from hooked_qwen.percents import percent


def quality_table(
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    joint: Mapping[str, Any] | None = None,
) -> None:
    """One line for each dictionary, a dim one for each of its `controls`, one for all at once.

    `docs/dictionaries.md` says what the columns mean.
    """
    columns = ("L0", "FVU", "95 %", "all", "cosine", "dead", "dense", "recovered", "95 %", "KL")
    table = Table(
        Column("dictionary", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, q in zip(names, rows, strict=True):
        table.add_row(name, *_quality_cells(q))
        for control, figures in q.get("controls", {}).items():
            table.add_row(f"  {control}", *_quality_cells(figures), style="dim")
    console.print(table)
    if joint is not None:
        console.print(
            f"{joint['dictionaries']} at once: recovered {_share(joint['loss_recovered'])} "
            f"({ends(joint['intervals']['loss_recovered'])}), KL {joint['kl']:.3f}, "
            f"CE {joint['ce_clean']:.3f}; spliced {joint['ce_spliced']:.3f}, "
            f"zero {joint['ce_zero']:.3f}, mean {joint['ce_mean']:.3f}",
            highlight=False,
        )


def mlp_table(names: Sequence[str], record: Mapping[str, Any]) -> None:
    """What it costs to replace MLPs by transcoders, by zero, by their mean: each, and all."""
    table = Table(
        Column("MLP", no_wrap=True),
        *(
            Column(name, justify="right", no_wrap=True)
            for place in ("replaced", "zero", "mean")
            for name in (place, "95 %", "KL")
        ),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    rows = {name.rpartition("-")[2]: record["dictionaries"][name] for name in names}
    if len(rows) > 1:
        rows["all at once"] = record["mlps"]
    for name, q in rows.items():
        cells = []
        for end in ("", "_zero", "_mean"):
            cells += [f"{q[f'ce_added{end}']:+.3f}", ends(q["intervals"][f"ce_added{end}"])]
            cells.append(f"{q[f'kl{end}']:.3f}")
        table.add_row(name, *cells)
    console.print("in the place of MLPs: added cross-entropy, and KL, in nats")
    console.print(table)


def probe_table(probings: Mapping[str, Mapping[str, Any]]) -> None:
    """For each dictionary, how well one and five features tell the labels, beside the controls."""
    first = next(iter(probings.values()))
    table = Table(
        "dictionary", "reads", "n", "accuracy", "95 %", "which", box=SIMPLE_HEAD, show_edge=False
    )
    for name, probing in probings.items():
        for row in probing["probes"]:
            chosen = row["chosen"]
            table.add_row(
                name if row is probing["probes"][0] else "",
                row["reads"],
                "all" if chosen is None else str(len(chosen)),
                _share(row["accuracy"]),
                ends(row["interval"]),
                "" if chosen is None or len(chosen) > 5 else ", ".join(map(str, chosen)),
                style="" if row["reads"] == "features" else "dim",
            )
    console.print(table)
    console.print(
        f"{' or '.join(first['labels'])}: {first['test']} texts, always the more frequent "
        f"{_share(first['majority'])}",
        highlight=False,
    )


def _quality_cells(q: Mapping[str, Any]) -> list[str]:
    return [
        f"{q['l0']:.1f}",
        f"{q['fvu']:.3f}",
        ends(q["intervals"]["fvu"]),
        f"{q['fvu_all']:.3f}",
        f"{q['cosine']:.3f}",
        percent(q["dead"]),
        f"{q['dense']:.0f}",
        _share(q["loss_recovered"]),
        ends(q["intervals"]["loss_recovered"]),
        f"{q['kl']:.3f}",
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
