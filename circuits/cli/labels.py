"""The verb that keeps people's and models' names of features."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.tables import labels_table, say
from hooked_qwen.notices import counted


def labels(
    folder: Annotated[Path, typer.Argument(help="A run, or a folder of dictionaries.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Explanations: exports of Neuronpedia or delphi, a labels.json, a page's state."
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--set", help="SITE/INDEX=TEXT; may be given again.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Whose words, where a file does not say; a model's begin with 'model'."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SITE: which site a file's layer is, such as 6-res-x=resid_post.6."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Labels to print.")] = 20,
) -> None:
    """What people and models call features, in pictures, tables and pages; kept in labels.json.

    Example: `circuits labels run --set "mlp_out.3/812=plural subjects" --by Ann`

    Example: `circuits labels run explanations.jsonl.gz`
    """
    from circuits.runs.label_run import add_labels

    done = add_labels(folder, files or [], said=name or [], by=by, sites=site or [])
    labels_table(done.labels, shown=rows)
    if done.outranked:
        say(f"note: {counted(done.outranked, 'label')} of models left out: a person named these")
    for where, n in done.of_other_sites.items():
        say(f"note: {counted(n, 'label')} of {where} left out: there is no such dictionary")
    if done.stale:
        say(f"note: {done.stale} has the old names until `circuits suite` makes it again")
    say(f"labels {done.path}")
