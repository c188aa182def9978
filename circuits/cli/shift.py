"""The verb that shifts a classifier away from a spurious signal."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from circuits.attribution.estimators import ESTIMATORS
from circuits.cli.options import (
    Device,
    DictionariesToUse,
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
    command_line,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console
from circuits.features.terminal import card_view
from circuits.render.words import counted

if TYPE_CHECKING:
    from circuits.shift.case import ShiftCase
    from circuits.shift.judging import Judged


class ZeroEstimator(StrEnum):
    # A member for each row of the table that needs no patch prompt.
    locals().update({name: name for name, e in ESTIMATORS.items() if not e.needs_patch})


ZERO_IG = ZeroEstimator("ig")


def shift(
    data: Annotated[
        str, typer.Argument(help="A file of labelled texts, or ours: biographies, registers.")
    ],
    out: OutFolder,
    label: Annotated[
        str | None, typer.Option(help="In a file: the field with the intended label.")
    ] = None,
    spurious: Annotated[
        str | None, typer.Option(help="In a file: the field with the spurious one.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="The two classes told apart, such as 'nurse,professor'."),
    ] = None,
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    mlp: MlpUsed = Mlp.sae,
    text_field: Annotated[
        str | None, typer.Option(help="In a file: the field with the text, where it is not found.")
    ] = None,
    texts: Annotated[
        int | None,
        typer.Option(
            help="Texts in each of the four sets of a seed: 400, or what a file has.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of texts, probe and controls.")] = 5,
    layer: Annotated[
        int | None,
        typer.Option(
            help="The stream after this layer is read; by default where the probe's held-out loss "
            "is smallest."
        ),
    ] = None,
    estimator: Annotated[
        ZeroEstimator, typer.Option(help="How effects on the probe are found.")
    ] = ZERO_IG,
    nodes: Annotated[int, typer.Option(help="Features that are judged.")] = 100,
    circuit_texts: Annotated[int, typer.Option(help="Texts that effects are means over.")] = 64,
    judgements: Annotated[
        Path | None, typer.Option(help="A file that says which features are cut.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Judge each feature here, from its card.")
    ] = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Cut out of a classifier the features of a signal that it should not go by.

    Example: `circuits shift biographies --out shift`

    Example: `circuits shift bios.parquet --label profession --spurious gender --out shift`
    """
    from circuits.runs.shift_run import JUDGED, PAGE, RECORD, shift_run
    from circuits.shift.shift import ShiftConfig

    placement = placed(device, dtype, memory)
    if ask and judgements is not None:
        raise ValueError("features are judged by --ask or by --judgements, not by both")
    config = ShiftConfig(
        seeds=seeds,
        seed=seed,
        layer=layer,
        estimator=estimator.value,
        nodes=nodes,
        circuit_texts=circuit_texts,
    )
    fields = {
        "label": label,
        "spurious": spurious,
        "classes": classes and classes.split(","),
        "text": text_field,
    }
    say_found(dictionaries, mlp)
    with bars() as report:
        record = shift_run(
            data,
            out,
            config=config,
            model=model,
            dictionaries=dictionaries,
            mlp=mlp.value,
            texts=texts,
            fields={name: value for name, value in fields.items() if value},
            judgements=judgements,
            ask=_Asking(out / JUDGED) if ask else None,
            force=force,
            placement=placement,
            command=command_line(),
            report=report,
        )
    _say(record)
    console.print(
        f"record  {out / RECORD}\npage    {out / PAGE}\nedit    {out / 'edit.json'}\n"
        f"circuit {out / 'circuit'}",
        highlight=False,
    )


def _say(record: dict) -> None:
    first = record["features"][0]
    cut = sum(bool(f["cut"]) for f in first)
    console.print(
        f"{record['label'][0]} without {record['spurious'][0]}, read at "
        f"{', '.join(dict.fromkeys(record['sites']))}: {cut} of {len(first)} features cut; "
        f"means of {counted(record['config']['seeds'], 'seed')}",
        highlight=False,
    )
    table = Table(
        Column("method"),
        *(Column(name, justify="right", no_wrap=True) for name in _COLUMNS.values()),
        box=SIMPLE_HEAD,
    )
    for name, method in record["methods"].items():
        table.add_row(name, *(_cell(method[key]) for key in _COLUMNS))
    console.print(table, highlight=False)
    for note in record["notes"]:
        console.print(f"note: {note}", highlight=False)


_COLUMNS = {"label": "label", "spurious": "spurious", "worst": "worst group"}


def _cell(score: dict) -> str:
    ends = score["interval"]
    return f"{score['value']:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


class _Asking:
    """Judges features one by one on the terminal; what was said is kept, and gone on with."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept

    def __call__(self, case: "ShiftCase", features: "Sequence[Judged]") -> "Sequence[Judged]":
        from dataclasses import replace

        from circuits.features.card import make_cards, prompt_texts
        from circuits.features.names import name_of_card
        from circuits.shift.judging import by_file, read_judgements, save_judgements

        if self.kept.exists():
            features = by_file(features, read_judgements(self.kept), by="person")
        nodes = [f.node for f in features]
        texts = prompt_texts(case.analysis.prompts)
        cards = make_cards(case.model, case.suite, nodes, texts)
        found = list(features)
        for i, feature in enumerate(found):
            if feature.cut is not None:
                continue
            card = cards[f"{feature.node.site}/{feature.node.feature}"]
            shown = card | {
                "feature": str(feature.node),
                "label": name_of_card(card),
                "sampled": [],
                "nearest": dict.fromkeys(("decoder", "encoder", "layers"), ()),
            }
            console.print(card_view(shown))
            effects = f"{feature.label:+.3g}"
            if feature.spurious is not None:
                effects += f", of the spurious signal {feature.spurious:+.3g}"
            console.print(
                f"{i + 1} of {len(found)}: effect on the probe of the label {effects}",
                highlight=False,
            )
            said = typer.prompt("keep, cut, or stop", default="keep").strip().lower()
            if said.startswith("s"):
                break
            cut = said.startswith("c")
            reason = typer.prompt("why", default="", show_default=False)
            found[i] = replace(feature, cut=cut, reason=reason, by="person")
            save_judgements(found, self.kept)
        return found
