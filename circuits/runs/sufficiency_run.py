"""How many features of transcoders a task needs, as a folder: the record and its figure."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from circuits.discovery.config import DiscoverConfig
from circuits.graph import write_json
from circuits.render.charts.score_curves import score_figure
from circuits.runs.inputs import Inputs, open_inputs
from circuits.runs.overwrite import MADE_FROM, check_record
from circuits.verification.sufficiency import SufficiencyConfig, sufficiency
from hooked_qwen.files import check_not_file
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import parse_layers

RECORD = "sufficiency.json"
FIGURES = ("sufficiency.svg", "sufficiency.pdf")


def sufficiency_run(
    inputs: Inputs,
    out: Path,
    *,
    config: DiscoverConfig,
    kept: SufficiencyConfig,
    layers: str = "all",
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Score a prompt set by the number of kept features; writes the record and figures to `out`.

    `layers`, such as `2-4`, stand in the place of those of `kept`.

    Raises `ValueError` where `out` holds something else, unless by `force`.
    """
    source = {
        "model": inputs.model,
        **inputs.hashes(),
        "config": config.record(),
        "kept": asdict(kept) | {"layers": layers},
        "dtype": placement.model_dtype,
    }
    check_not_file(out)
    check_record(out / RECORD, source, force=force)
    analysis = open_inputs(inputs, config, placement=placement).analysis
    if layers != "all":
        chosen = parse_layers(layers, analysis.model.cfg.n_layers)
        kept = replace(kept, layers=tuple(chosen))
    record = sufficiency(analysis, kept, report=report) | {MADE_FROM: source}
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, out / RECORD)
    for name in FIGURES:
        score_figure(record, out / name)
    return record
