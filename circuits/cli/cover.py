"""`circuits cover`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.fitting import LEAST
from circuits.cli.options import (
    Device,
    Dictionaries,
    Force,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    OutFolder,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.render.words import readable
from hooked_qwen.notices import counted
from hooked_qwen.percents import percent

HARDLY = 10
"Features, fewer than which tell little of a set."
UNITS = {"features": "features", "untrained": "untrained dictionaries", "tokens": "tokens"}


def cover(
    dictionaries: Dictionaries,
    sets: Annotated[
        list[str],
        typer.Argument(
            help="Files of texts or prompts, or names of tasks that `circuits prompts list` has."
        ),
    ],
    out: OutFolder,
    model: Model = "bundled",
    common: Annotated[
        list[str] | None,
        typer.Option(help="Texts, as --text takes them: what is on in them is left out."),
    ] = None,
    common_share: Annotated[
        float,
        typer.Option(help="Leave out what is on in more than this share of the common texts."),
    ] = 0.0,
    results: Annotated[
        Path | None,
        typer.Option(help="Rows of set, item, model, correct: what models got right."),
    ] = None,
    texts: Annotated[int, typer.Option(help="Texts of each set that are read at most.")] = 200,
    keep: Annotated[float, typer.Option(help="Share of the coverage that a subset keeps.")] = 0.95,
    mlp: MlpUsed = Mlp.sae,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """What test sets turn on, how redundant they are, what they share, which part would do.

    Distinct tokens and untrained dictionaries stand beside features everywhere.

    Example: `circuits cover bundled ioi greater_than questions.jsonl --out cover`
    """
    from circuits import scope
    from circuits.features.coverage import CoverConfig
    from circuits.scope.cover import FIGURES, RECORD

    at_least(1, texts=texts)
    with bars() as report:
        record = scope.cover(
            dictionaries,
            sets,
            model,
            common=common or (),
            results=results,
            texts=texts,
            config=CoverConfig(keep=keep, common_share=common_share, seed=seed),
            mlp=mlp.value,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    sets_table(record)
    if common:
        _hardly_any(record, common_share)
    for unit, title in UNITS.items():
        _overlaps(record, unit, title)
    if record["results"]:
        _results(record["results"])
    if record["texts_cut"]:
        said = counted(record["texts_cut"], "text")
        say(f"note: of {said} the first {record['longest']} tokens were read")
    say(f"record {out / RECORD}\nfigures {', '.join(str(out / name) for name in FIGURES)}")


def _table(first: str, *columns: str) -> Table:
    return Table(
        Column(first, no_wrap=True, min_width=LEAST, max_width=24),
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def sets_table(record: Mapping[str, Any]) -> None:
    keep, at = percent(record["keep"]), record["at"]
    table = _table("set", "samples", "", "on", "share", "N/m", f"n/m of {at}", keep, "random")
    for name in record["sets"]:
        for unit, title in UNITS.items():
            one = record["units"][unit]["sets"][name]
            subset = one["subset"]
            first = unit == "features"
            table.add_row(
                Text(readable(name) if first else ""),
                str(one["samples"]) if first else "",
                title,
                f"{one['distinct']:,}",
                percent(one["share"]),
                _three(one["redundancy"]),
                _three(one["redundancy_at"]),
                "–" if subset is None else str(len(subset["samples"])),
                "–" if subset is None else str(subset["random_size"]),
                style=None if first else "dim",
            )
    console.print(table)
    say(
        f"n/m of {at}: among {at} random samples; {keep}: samples chosen one by one that keep so "
        "much of what is on, random: as many random samples as keep it on average\n"
    )


def _hardly_any(record: Mapping[str, Any], common_share: float) -> None:
    """Say of sets which the common texts leave nearly nothing of."""
    found = record["units"]["features"]["sets"]
    if few := [name for name in record["sets"] if found[name]["distinct"] < HARDLY]:
        left = ", ".join(f"{found[name]['distinct']} of {readable(name)}" for name in few)
        say(
            f"note: of the features only {left} are left beside the common texts: leave out only "
            f"what is on in more than a larger --common-share (now {common_share:g})\n",
            style="yellow",
        )


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _overlaps(record: Mapping[str, Any], unit: str, title: str) -> None:
    found = record["units"][unit]
    table = _table(title, *(str(i + 1) for i in range(len(record["sets"]))))
    for i, name in enumerate(record["sets"]):
        cells = [
            f"({_percent(found['halves'][i])})" if i == j else _percent(value)
            for j, value in enumerate(found["overlap"][i])
        ]
        table.add_row(Text(f"{i + 1} {readable(name)}"), *cells)
    console.print(table)
    if unit == "features":
        say(
            "share in % of what the row turns on that the column turns on too; (between halves of "
            "the set itself); samples permuted are in the record and the figure\n"
        )
    elif found["agreement"]:
        rho, p = (found["agreement"][name] for name in ("spearman", "p"))
        say(f"rank correlation with the overlaps of features {rho:z.2f}, p = {p:.3g}\n")
    else:
        say("")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _results(results: Mapping[str, Any]) -> None:
    table = _table(
        "set", "by results", "samples", "by features", "untrained", "by tokens", "random (95 %)"
    )
    for name, one in results["sets"].items():
        random = one["random"]
        low, high = random["error_interval"]
        table.add_row(
            Text(readable(name)),
            _two(one["redundancy"]),
            str(one["size"]),
            *(f"{one['subsets'][u]['error']:.3f}" for u in UNITS),
            f"{random['error']:.3f} ({low:.3f}..{high:.3f})",
        )
    console.print(table)
    say(
        "by results: how well random items rank the models as all do; then how far accuracies on "
        "so many samples are from those on all, chosen by what they cover and at random\n"
    )
    for measure, found in (results["correlations"] or {}).items():
        ends = "" if found["interval"] is None else "{:z.2f} to {:z.2f}".format(*found["interval"])
        say(f"rank correlation of {measure} with that by results {found['spearman']:z.2f} ({ends})")
