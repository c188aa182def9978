"""The verbs for edits: make, show, bake."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuits.cli.options import (
    Device,
    DictionariesToUse,
    Force,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    Quiet,
    SeedUnused,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import baked_summary, edit_table
from circuits.cli.tables import say as say_line
from saes.operations import OPERATIONS, VALUED

if TYPE_CHECKING:
    from saes.edit_file import Condition, Value, Where

_VALUES = ", ".join(
    f"{name} {'LOW,HIGH' if OPERATIONS[name].takes == '(low, high)' else 'NUMBER'}"
    for name in VALUED
)
EditFile = Annotated[Path, typer.Argument(help="An edit file.")]


class ErrorTerms(StrEnum):
    keep = "keep"
    drop = "drop"


def make_edit(
    out: Annotated[Path, typer.Option(help="Edit file to write.")],
    run: Annotated[
        Path | None, typer.Argument(help="The run whose graph and dictionaries it is of.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Features, such as 'mlp_out.3/812,resid_post.5/17@4'.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="The graph's n strongest features.")] = None,
    outside: Annotated[
        bool, typer.Option("--outside", help="Everything outside the graph, or --nodes.")
    ] = False,
    nodes: Annotated[
        Path | None,
        typer.Option(help="A file of nodes, as in docs/edits.md, Files of nodes."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group of the file --nodes, repeatable.")
    ] = None,
    compose: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two edits to do one after the other.")
    ] = None,
    invert: Annotated[Path | None, typer.Option(help="An edit to write the inverse of.")] = None,
    do: Annotated[
        str, typer.Option(help=f"What is done to each feature: {', '.join(OPERATIONS)}.")
    ] = "zero",
    value: Annotated[
        str | None, typer.Option(help=f"The operation's value: {_VALUES}.", show_default=False)
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="Tokens: all, prompt, generated, last, or numbers such as 0,3; by default each "
            "node's own."
        ),
    ] = None,
    when: Annotated[
        str | None,
        typer.Option(help="Edit only where a feature is on, such as 'resid_post.2/7>0.5'."),
    ] = None,
    errors: Annotated[
        ErrorTerms, typer.Option(help="Error terms of the same sites: keep them, or drop them too.")
    ] = ErrorTerms.keep,
    dictionaries: Annotated[
        str,
        typer.Option(help="Dictionaries where no run is named: folder, hub name, or 'bundled'."),
    ] = "bundled",
    mlp: MlpUsed = Mlp.sae,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedUnused = 0,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write an edit: what is done to which features, at which tokens.

    Example: `circuits edit make run --top 10 --do scale --value 0.5 --out half.json`

    Example: `circuits edit make --features "resid_post.3/5" --positions all --out cut.json`
    """
    from circuits.edits.make import Change
    from circuits.runs import edits

    placement = placed(device, dtype, memory)
    if compose is not None or invert is not None:
        if features or top or outside or nodes or run or (compose and invert):
            raise ValueError("--compose and --invert take edits and nothing else")
        made = (
            edits.compose_edits(compose, out, force=force)
            if compose is not None
            else edits.invert_edit(invert or out, out, force=force)
        )
    else:
        if top is not None:
            at_least(1, top=top)
        selection = edits.Selection(
            features=features, top=top, outside=outside, nodes=nodes, groups=tuple(group or ())
        )
        change = Change(
            do=do,
            value=_value(value),
            positions=_positions(positions),
            when=_condition(when),
            errors=errors.value,
        )
        made = edits.make_edit(
            selection,
            change,
            out,
            run=run,
            dictionaries=dictionaries,
            mlp=mlp.value,
            force=force,
            placement=placement,
        )
    edit_table(made, shown=0)
    say_line(f"edit {out}")


def show_edit(
    edit: EditFile,
    dictionaries: Annotated[
        str | None, typer.Option(help="Say whether the edit is of these.", show_default=False)
    ] = None,
    mlp: MlpUsed = Mlp.sae,
    rows: Annotated[int, typer.Option(help="Operations to list.")] = 20,
) -> None:
    """What an edit does, in words and operation by operation.

    Example: `circuits edit show half.json`
    """
    from circuits.runs import edits

    at_least(0, rows=rows)
    edit_table(edits.read_edit(edit, dictionaries, mlp.value), shown=rows)


class BakeMethod(StrEnum):
    auto = "auto"
    weights = "weights"
    loader = "loader"


def bake_edit(
    edit: EditFile,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    run: Annotated[
        Path | None, typer.Option(help="Take model, dictionaries and prompts of this run.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts on which it is held against the hooked edit.")
    ] = None,
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    mlp: MlpUsed = Mlp.sae,
    how: Annotated[
        BakeMethod,
        typer.Option(
            help="What is baked: weights where these can do it, else a loader; or one of the two."
        ),
    ] = BakeMethod.auto,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedUnused = 0,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make an edit part of a model's folder, which plain transformers loads.

    Example: `circuits edit bake half.json --run run --out half-model`
    """
    from circuits.edits.bake import BakeConfig
    from circuits.runs import edits

    placement = placed(device, dtype, memory)
    with bars() as report:
        record = edits.bake_edit(
            edit,
            out,
            run=run,
            model=model,
            dictionaries=dictionaries,
            mlp=mlp.value,
            prompts=prompts,
            config=BakeConfig(how=how.value),
            force=force,
            placement=placement,
            report=report,
        )
    baked_summary(record)
    say_line(f"model {out}")


def _value(text: str | None) -> "Value | None":
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"--value is {text!r}: expected a number, or LOW,HIGH")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _positions(text: str | None) -> "Where | tuple[int, ...] | None":
    from typing import get_args

    from saes.edit_file import Where

    if text is None or text in get_args(Where):
        return text  # pyright: ignore[reportReturnType]
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(
            f"--positions is {text!r}: expected {', '.join(get_args(Where))}, or numbers of tokens "
            "counted from 0, such as 0,3"
        )
    return tuple(map(int, parts))


def _condition(text: str | None) -> "Condition | None":
    from hooked_qwen.nodes import Node
    from saes.edit_file import Condition

    if text is None:
        return None
    node, found, above = text.partition(">")
    try:
        return Condition(node=Node.parse(node.strip()), above=float(above))
    except ValueError:
        if found and "/" in node:
            Node.parse(node.strip())
        raise ValueError(f"--when is {text!r}: expected such as 'resid_post.2/7>0.5'") from None
