"""The verb that keeps people's and models' names of features."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import Force
from circuits.cli.tables import labels_table, say
from hooked_qwen.notices import counted


class Target(StrEnum):
    delphi = "delphi"
    neuronpedia = "neuronpedia"


def labels(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder of dictionaries.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Explanations: exports of Neuronpedia or delphi, a labels.json, a page's state."
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--set", help="A label, SITE/INDEX=TEXT, repeatable.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Whose words, where a file does not say; a model's begin with 'model'."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Site of a file's layer, NAME=SITE, such as 6-res-x=resid_post.6."),
    ] = None,
    to: Annotated[
        Target | None, typer.Option(help="Write all labels as delphi or Neuronpedia reads them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for --to.")] = None,
    model_id: Annotated[
        str | None, typer.Option(help="What Neuronpedia calls the model, for --to neuronpedia.")
    ] = None,
    described: Annotated[
        Path | None,
        typer.Option(help="What `circuits describe` wrote: its scores, for --to delphi."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Labels to print.")] = 20,
    force: Force = False,
) -> None:
    """What people and models call features, in pictures, tables and pages; kept in labels.json.

    Example: `circuits labels run --set "mlp_out.3/812=plural subjects" --by Ann`

    Example: `circuits labels run explanations.jsonl.gz`

    Example: `circuits labels DICTS --to neuronpedia --model-id qwen3-0.6b --out exported`
    """
    from circuits.runs.label_run import add_labels, export_labels

    if (to is None) != (out is None):
        raise ValueError("an export takes --to and --out, the folder for it")

    done = add_labels(folder, files or [], said=name or [], by=by, sites=site or [])
    exported = None
    if to is not None and out is not None:
        exported = export_labels(
            done.labels,
            to.value,
            out,
            sites=site or [],
            model_id=model_id,
            described=described,
            force=force,
        )
    labels_table(done.labels, shown=rows)
    if done.outranked:
        say(f"note: {counted(done.outranked, 'label')} of models left out: a person named these")
    for where, n in done.of_other_sites.items():
        say(f"note: {counted(n, 'label')} of {where} left out: there is no such dictionary")
    if done.stale:
        say(f"note: {done.stale} has the old names until `circuits suite` makes it again")
    say(f"labels {done.path}")
    if exported is not None and to is not None:
        say(f"{counted(exported, 'file')} for {to.value} in {out}")
