"""`circuits verify`: a run held against ablation, its record and its page."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuits import graph as graphs
from circuits.graph import write_json
from circuits.metrics.readout import MetricChoice
from circuits.render.pages.circuit.document import groups_on_page
from circuits.runs.finished_run import read_run
from circuits.runs.folder import write_page
from circuits.runs.overwrite import (
    MADE_FROM,
    check_record,
    is_made_from,
)
from circuits.runs.pages import cards_beside
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.files import content_hash
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent


def verify_run(
    folder: Path,
    *,
    config: VerifyConfig,
    held_out: Path | None = None,
    force: bool = False,
    metric: MetricChoice | None = None,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Check a run against ablation; writes verification.json, exact effects, and the page.

    `metric` is the run's, where that is a Python function. The run's own device and precision are
    taken unless `placement` says otherwise.

    Raises `ValueError` where a verification with other settings would be lost, unless by `force`.
    """
    run = read_run(folder).with_metric(metric)
    path = folder / "verification.json"
    source = {**asdict(config), "held_out_hash": held_out and content_hash(held_out)}
    source |= {"dtype": placement.dtype or run.placement.dtype}
    if not is_made_from(path, source | {"level": "quick"}):
        check_record(path, source, force=force)
    loaded = run.open(placement)
    record = verify(
        loaded.analysis,
        run.graph,
        run.ranking,
        config=config,
        held_out=None if held_out is None else loaded.others(held_out),
        groups=groups_on_page(run.graph, cards_beside(folder)),
        report=report,
    )
    for stale in folder.glob("verification.*"):
        stale.unlink()
    graphs.save(run.graph, folder / "graph.json")
    write_json(record | {MADE_FROM: source}, path)
    write_page(folder)
    return record
