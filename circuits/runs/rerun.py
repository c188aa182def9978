"""An edit rerun: prompts, a text, continuations, side effects, the graph; the folder of `--out`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import networkx as nx
from jaxtyping import Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.comparison import STATUSES, differences
from circuits.edits.continuations import rerun_generation
from circuits.edits.edited import graph_left
from circuits.edits.rerun import rerun_prompts, rerun_text
from circuits.edits.side_effects import behaviours_for, side_effects
from circuits.graph import rounded
from circuits.render.pages.rerun.rerun_page import Graphs
from circuits.runs.overwrite import MADE_FROM, digest
from circuits.runs.rerun_folder import check_rerun, write_folder
from circuits.runs.rerun_inputs import OpenedRerun, Rerun, open_run, open_without_run
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from saes.edit_file import Edit
from saes.edit_words import in_words, rows
from saes.evaluation.metrics import held_out_blocks
from saes.suite import MlpChoice
from transcoders.interventions import THE_MODEL, Mode

__all__ = ["Rerun", "graph_record", "rerun_edit"]

SCHEMA = "rerun/1"
OPERATIONS = 100
"Operations that a record lists one by one."
CHANGES = 50
"Nodes that a record lists: those that change most."


def rerun_edit(
    path: Path,
    rerun: Rerun,
    out: Path | None = None,
    *,
    model: str = BUNDLED,
    dictionaries: str = BUNDLED,
    mlp: MlpChoice = "sae",
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Run the edit at `path` again; write result.json, result.html and a graph into `out`.

    Model, dictionaries and prompts are a run's, where one is given. Raises `ValueError` for an
    edit of other dictionaries, for a run beside a model or dictionaries, and where `out` holds
    something else, unless by `force`; `RuntimeError` for an edit that changes nothing of what is
    run.
    """
    edit = Edit.load(path)
    chosen = open_run if rerun.run is not None else open_without_run
    opening = chosen(edit, rerun, model, dictionaries, mlp, placement)
    source = {"edit": digest(edit.text()), **opening.source, **rerun.made_from()}
    if out is not None:
        check_rerun(out, source, force=force)
    opened = opening.open(report)
    left = None
    parts = dict(_parts(opened, edit, rerun, report))
    if opened.of_run is not None and _has_graph_left(opened.of_run, rerun):
        left = graph_left(opened.of_run, edit, opened.before, report=report)
        parts["graph"] = graph_record(opened.before, left)
    listed = [asdict(row) for row in rows(edit)]
    record = {
        "schema": SCHEMA,
        "edit": [*in_words(edit), *_held_words(rerun.mode)],
        "n_operations": len(listed),
        "operations": listed[:OPERATIONS],
        "model": opened.model.cfg.model_name,
        **parts,
        MADE_FROM: source,
    }
    if out is not None:
        shown = None
        if left is not None:
            shown = Graphs(before=opened.before, after=left, cards=opened.cards)
        write_folder(out, record, title=f"{path.stem}: what the edit changes", shown=shown)
    return record


def _held_words(mode: Mode) -> list[str]:
    told = f"of each prompt's own run held: attention {mode.attention}, MLPs {mode.mlps}"
    return [] if mode == THE_MODEL else [told]


def _has_graph_left(analysis: Analysis, rerun: Rerun) -> bool:
    """Whether there is a graph under the edit: of sparse features, in the model itself."""
    return analysis.config.method == "sparse-feature" and rerun.mode == THE_MODEL


def _parts(opened: OpenedRerun, edit: Edit, rerun: Rerun, report: Report) -> Mapping[str, Any]:
    model, suite = opened.model, opened.suite
    found: dict[str, Any] = {}
    total = sum(map(bool, (opened.analysis, rerun.text, rerun.generate)))

    def done() -> None:
        report("rerunning", len(found), total)

    if opened.analysis is not None:
        found["prompts"] = rerun_prompts(opened.analysis, edit, rerun.mode)
        done()
    if rerun.text:
        found["text"] = rerun_text(model, suite, edit, _blocks(opened, rerun))
        done()
    if rerun.generate:
        found["generate"] = rerun_generation(
            model, suite, edit, rerun.generate, rerun.writing, rerun.mode
        )
        done()
    if rerun.side_effects is not None:
        found["side_effects"] = _side_effects(opened, edit, rerun, report)
    return found


def _blocks(opened: OpenedRerun, rerun: Rerun) -> Int[Tensor, "blocks pos"]:
    texts = texts_of(list(rerun.text or (BUNDLED,)), seed=rerun.seed)
    return held_out_blocks(texts(), opened.model, tokens=rerun.tokens)


def _side_effects(opened: OpenedRerun, edit: Edit, rerun: Rerun, report: Report) -> dict[str, Any]:
    config = rerun.side_effects
    assert config is not None, "asked for above"
    behaviours, left_out = behaviours_for(opened.name, opened.model.tokenizer, config)
    if opened.analysis is not None and opened.analysis.prompts.patch is not None:
        behaviours = {f"prompts of {opened.told}": opened.analysis.prompts, **behaviours}
    blocks = _blocks(opened, rerun)
    found = side_effects(
        opened.model, opened.suite, edit, behaviours, blocks, config, report=report
    )
    return {**found, "left_out": left_out}


def graph_record(before: nx.DiGraph, after: nx.DiGraph) -> dict[str, Any]:
    """What an edit changes of a graph: how many nodes are gone, new, changed, and which most."""
    found = differences(before, after)
    counts = Counter(row.status for row in found)
    return {
        "before": {"nodes": len(before), "edges": before.number_of_edges()},
        "after": {"nodes": len(after), "edges": after.number_of_edges()},
        "statuses": {status: counts[status] for status in STATUSES},
        "most": [
            {
                "node": str(row.node),
                "label": (after if row.b is not None else before).nodes[row.node].get("label"),
                "status": row.status,
                "effect_before": rounded(row.effect_a),
                "effect_after": rounded(row.effect_b),
                "change": rounded(row.change),
            }
            for row in found[:CHANGES]
        ],
    }
