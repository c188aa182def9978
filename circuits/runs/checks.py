"""Two checks of whole circuits: are they specific to their task, are they found again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuits.graph import write_json
from circuits.render.charts.heatmap import heat_map
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Loaded
from circuits.runs.overwrite import MADE_FROM, check_record
from circuits.verification.specificity import SpecificityConfig, TaskCircuit, specificity
from circuits.verification.stability import StabilityConfig, stability
from hooked_qwen.files import check_not_file, content_hash
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent

MATRIX, STABILITY = "specificity.json", "stability.json"
FIGURES = ("specificity.svg", "specificity.pdf")


def specificity_run(
    folders: Sequence[Path],
    out: Path,
    *,
    config: SpecificityConfig,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Cut every run's circuit on every run's task; writes the matrix and its heat map to `out`.

    The model is loaded once. Raises `ValueError` for runs of different models or dictionaries,
    and where `out` holds something else, unless by `force`.
    """
    names = run_names(folders)
    source = {
        "runs": {
            name: content_hash(folder / "graph.json")
            for name, folder in zip(names, folders, strict=True)
            if read_run(folder)
        },
        "config": asdict(config),
        "dtype": placement.dtype,
    }
    check_not_file(out)
    check_record(out / MATRIX, source, force=force)
    tasks: dict[str, TaskCircuit] = {}
    first: Loaded | None = None
    for name, folder in zip(names, folders, strict=True):
        run = read_run(folder)
        loaded = run.open(placement, beside=first)
        first = first or loaded
        tasks[name] = TaskCircuit(analysis=loaded.analysis, graph=run.graph, ranking=run.ranking)
    record = specificity(tasks, config, report=report) | {MADE_FROM: source}
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, out / MATRIX)
    for name in FIGURES:
        heat_map(record, out / name)
    return record


def run_names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where two share one; `ValueError` for one twice."""
    resolved = [folder.resolve() for folder in folders]
    for folder in resolved:
        if resolved.count(folder) > 1:
            raise ValueError(f"{folder} is given twice: every run once")
    short = [folder.name for folder in resolved]
    return short if len(set(short)) == len(short) else [folder.as_posix() for folder in folders]


def stability_run(
    folder: Path,
    *,
    config: StabilityConfig,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Find a run's circuit again on draws of its prompts; writes stability.json into the run.

    Raises `ValueError` where one with other settings would be lost, unless by `force`.
    """
    run = read_run(folder)
    source = asdict(config) | {"dtype": placement.dtype or run.placement.dtype}
    check_record(folder / STABILITY, source, force=force)
    analysis = run.open(placement).analysis
    record = stability(analysis, run.graph, run.ranking, config, report=report)
    write_json(record | {MADE_FROM: source}, folder / STABILITY)
    return record
