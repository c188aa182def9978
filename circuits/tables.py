"""What the commands print: small tables on the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from circuits.compare import Difference

console = Console(width=None if sys.stdout.isatty() else 110)
PRINTED_SIZES = (5, 10, 20, 50, 100, 200, 500)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def quality_table(names: Sequence[str], rows: Sequence[Mapping[str, int | float]]) -> None:
    """One line for each dictionary; `docs/dictionaries.md` says what the columns mean."""
    table = Table(
        Column("dictionary", no_wrap=True),
        "L0",
        "FVU",
        "FVU all",
        "dead",
        "dense",
        "loss recovered",
        "KL",
    )
    for name, q in zip(names, rows, strict=True):
        table.add_row(
            name,
            f"{q['l0']:.1f}",
            f"{q['fvu']:.3f}",
            f"{q['fvu_all']:.3f}",
            f"{q['dead']:.1%}",
            f"{q['dense']:.0f}",
            f"{q['loss_recovered']:.3f}",
            f"{q['kl']:.3f}",
        )
    console.print(table)


def verification_table(record: Mapping[str, Any]) -> None:
    """How estimates and exact effects agree, and the faithfulness of circuits and controls."""
    nodes, curves = record["nodes"], record["curves"]
    console.print(
        f"{nodes['n']} nodes on {nodes['n_prompts']} prompts, {record['estimator']} against exact: "
        f"Spearman {_number(nodes['spearman'])}, slope {_number(nodes['slope'])}, "
        f"same sign {nodes['sign_agreement']:.0%}",
        highlight=False,
    )
    shown = [i for i, size in enumerate(curves["sizes"]) if size in PRINTED_SIZES]
    table = Table(
        Column("faithfulness of", no_wrap=True), *(str(curves["sizes"][i]) for i in shown)
    )
    for name, row in curves["rows"].items():
        table.add_row(name, *(f"{row['faithfulness'][i]:.2f}" for i in shown))
    complete = curves["rows"]["circuit"]["completeness"]
    table.add_row("circuit's complement", *(f"{complete[i]:.2f}" for i in shown))
    console.print(table)


def ablation_table(result: Mapping[str, Any]) -> None:
    """The metric before and after, beside the random controls."""
    table = Table("", "mean metric", "accuracy")
    table.add_row("before", _number(result["before"]), f"{result['accuracy_before']:.0%}")
    table.add_row("after", _number(result["after"]), f"{result['accuracy_after']:.0%}")
    for control in result["controls"]:
        table.add_row(
            control["name"], _number(control["after"]), f"{control['accuracy_after']:.0%}"
        )
    console.print(table)


def comparison_table(rows: Sequence[Difference], names: tuple[str, str]) -> None:
    """The nodes that changed most between two graphs."""
    table = Table("node", "status", *names, "change")
    for row in rows:
        values = (row.effect_a, row.effect_b, row.change)
        table.add_row(str(row.node), row.status, *map(_number, values))
    console.print(table)
