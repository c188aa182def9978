"""What `circuits tune` and `circuits reinforce` say on the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from circuits.cli.tables import console, say
from circuits.render.words import readable


def tell(record: Mapping[str, Any], out: Path | None, dry_run: bool) -> None:
    """The table of models, or what training them would take."""
    if dry_run:
        _estimated(record)
    else:
        _judged(record, out)


def _estimated(record: Mapping[str, Any]) -> None:
    say(
        f"{record['trained']:,} of {record['weights']:,} weights trained, {record['arms']} times; "
        f"{record['bytes'] / 1e9:.2f} GB of weights, gradients and Adam's means, activations on "
        f"top; {record['passes']:,} passes of at most {record['tokens_in_a_pass']:,} tokens, of "
        f"{record['texts']:,} texts"
        + (f"; {record['tokens_written']:,} tokens written" if record["tokens_written"] else "")
    )
    if features := record.get("features"):
        say(f"features {', '.join(features)}")


def _judged(record: Mapping[str, Any], out: Path | None) -> None:
    clean = list(record["arms"]["before"]["cross_entropy"])
    table = Table(
        Column("model", no_wrap=True),
        Column(record["behaviour"], justify="right", no_wrap=True),
        *(Column(f"nats/token, {name}", justify="right") for name in clean),
        Column("features", justify="right", no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name, arm in record["arms"].items():
        on = arm["activation"]["chosen features"]["prompts"]
        table.add_row(
            name,
            _ranged(arm["behaviour"]),
            *(f"{arm['cross_entropy'][text]['mean']:.3f}" for text in clean),
            f"{on['pre_activation']:.3g}",
        )
    console.print(table)
    say("features: the mean pre-activation of the chosen ones on the prompts\n")
    for against, others in record["against"].items():
        for name, found in others.items():
            say(f"{record['behaviour']}, {name} − {against}: {_ranged(found, sign='+')}")
    for i, one in enumerate(record["arms"]["before"]["written"][:1]):
        say(f"\nwritten after {one['prompt']!r}")
        for name, arm in record["arms"].items():
            say(f"  {name}: {readable(arm['written'][i]['written'])}")
    say(f"written to {out}")


def _ranged(found: Mapping[str, Any], sign: str = "") -> str:
    value = f"{found['mean']:{sign}.3f}"
    if found["interval"] is None:
        return value
    low, high = found["interval"]
    return f"{value} ({low:{sign}.3f} to {high:{sign}.3f})"
