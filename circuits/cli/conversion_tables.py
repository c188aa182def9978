"""What a conversion by a map found, as tables."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from circuits.cli.tables import console, say

ROWS = 12
"Conventions that are shown."


def conversion_tables(record: Mapping[str, Any]) -> None:
    """Print what was tried, which convention fits, and how good each dictionary is."""
    if trial := record.get("trial"):
        _tried(trial)
    found = record["dictionaries"]
    judged = any("fvu" in one for one in found.values())
    table = _table("dictionary", "file", numbers=("features", "k"))
    if judged:
        table = _table("dictionary", "file", numbers=("features", "k", "L0", "FVU", "untrained"))
    for name, one in found.items():
        k = "" if one["k"] is None else str(one["k"])
        row = [name, one["file"], f"{one['features']:,}", k]
        if judged:
            ends = _ends(one["intervals"]["fvu"])
            row += [f"{one['l0']:.1f}", f"{one['fvu']:.3f} {ends}", f"{one['untrained_fvu']:.3f}"]
        table.add_row(*row)
    console.print(table)
    if judged:
        say("FVU is the share of variance left unexplained; untrained has the same shape\n")


def _tried(trial: Mapping[str, Any]) -> None:
    table = _table(numbers=("FVU", "more than the best"), last="how it is read")
    best, *others = trial["tried"]
    terms = ("site", "W_enc", "W_dec", "scale", "centre", "activation")
    told = ", ".join(f"{name}: {best[name]}" for name in terms)
    table.add_row(f"{best['fvu']:.3f} {_ends(best['fvu_interval'])}", "", told)
    shown = [one for n, one in enumerate(others) if one["same"] or not _again(one, others[:n])]
    for one in shown[: ROWS - 1]:
        more = "the same" if one["same"] else f"{one['worse']:.3f} {_ends(one['worse_interval'])}"
        told = ", ".join(f"{name}: {value}" for name, value in one["differs"].items())
        told += " (the map as given)" if one["given"] else ""
        table.add_row(f"{one['fvu']:.3f} {_ends(one['fvu_interval'])}", more, told)
    console.print(table)
    fvus = [one["fvu"] for one in (best, *shown[: ROWS - 1])]
    if any(later < earlier - 1e-6 for earlier, later in pairwise(fvus)):
        from saes.evaluation.conventions import CLOSE  # with torch, which not all commands need

        say(
            "note: rows are in the order of their FVU, but a scale that is measured here or by "
            f"token counts {CLOSE - 1:.0%} worse than one that the files or the map name"
        )
    say(_verdict(trial) + "\n")


def _again(one: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another way that reconstructs the same stands before it."""
    return any(abs(one["fvu"] - other["fvu"]) < 1e-6 for other in before) and not one["given"]


def _verdict(trial: Mapping[str, Any]) -> str:
    """Which convention fits, and how sure that is."""
    best, *others = trial["tried"]
    second = next((one for one in others if not one["same"]), None)
    said = (
        f"Of {trial['ways']} ways to read it the first fits: an untrained dictionary of this shape "
        f"leaves {trial['untrained_fvu']:.3f} at best."
    )
    if second is None:
        return said
    how = ", ".join(f"{name}: {value}" for name, value in second["differs"].items())
    if trial["ambiguous"]:
        return f"{said} It is ambiguous: with {how} the FVU is {second['fvu']:.3f}."
    return f"{said} The second ({how}) leaves {second['worse'] / best['fvu']:.0%} more."


def _table(*texts: str, numbers: Sequence[str], last: str | None = None) -> Table:
    columns = [Column(text, no_wrap=True) for text in texts]
    columns += [Column(text, justify="right", no_wrap=True) for text in numbers]
    columns += [Column(last)] if last else []
    return Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.3f}..{interval[1]:.3f})"
