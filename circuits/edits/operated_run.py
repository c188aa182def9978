"""Prompts under the operations of an edit: where they leave each node, and how it responds.

A node stands at what the operations leave of it. One that they pin (to zero, a mean, a value, the
patch's) stands still. The others keep their effects, and respond to what they read as far as the
operations let them,

    f_i' = o(f_i)        response = (o(f_i on patch) - o(f_i)) / (f_i on patch - f_i)

or the derivative of o, where f_i is the same on both prompts or there is none to go to: v for
`scale`, 1 for `add`, what lies within its range for `clamp`.

Axes: `batch` prompts, `pos` columns, `chosen` the features looked at of one dictionary: those that
are named, the slots of a token, or all there are.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import (
    CleanAndPatchRuns,
    RecordedRun,
    decompose,
    run_plain,
    site_values,
)
from circuits.attribution.state import check_patch
from circuits.edits.edited_run import EditedRun, read_elsewhere
from circuits.edits.operations import looks_at_all, on_error, operated, pinned, standing
from circuits.edits.patch import patch_values
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit import applied
from saes.edit_checks import check_edit
from saes.edit_file import Edit
from saes.edit_steps import Plan
from saes.edited_pass import Chosen, EditedPass, Patch
from saes.features import Features
from saes.intervention import require_reads_first


def operated_run(analysis: Analysis, edit: Edit, rows: Int[Tensor, " batch"]) -> EditedRun:
    """Some of the prompts under an edit; what goes to the patch's value goes to its own patch's.

    Raises `ValueError` as `check_operations` does.
    """
    model, suite, prompts = analysis.model, analysis.suite, analysis.prompts
    check_operations(analysis, edit)
    # Its dictionaries are these: they are not asked again in every pass.
    edit = replace(edit, suite=None)
    patch = None
    if any(op.needs == "patch" for op in edit.operations):
        patch = patch_values(analysis, edit, rows)
    batches = [prompts.clean] if prompts.patch is None else [prompts.clean, prompts.patch]
    batches = [batch.rows(rows).to(device_of(model)) for batch in batches]
    found = [_edited(analysis, batch, edit, patch) for batch in batches]
    runs, done = [run for run, _ in found], [each for _, each in found]
    nodes = decompose(suite, *runs, reference=analysis.config.reference)
    # Moved to the patch run, what that pins elsewhere is on its way there.
    both = done if analysis.config.reference == "patch" else done[:1]
    # A state keeps `under`, which holds this and not the runs.
    known = runs[0].arriving

    def held(name: str, f: Features) -> Bool[Tensor, "batch pos slots"]:
        return torch.stack([pinned(each, name, f.index) for each in both]).all(0)

    def held_errors(site: Site) -> Bool[Tensor, "batch pos"]:
        return torch.stack([on_error(each, site)[1] for each in both]).all(0)

    def under(index: Int[Tensor, " rows"]):
        return applied(
            model,
            suite,
            edit,
            patch=None if patch is None else _of_rows(patch, index),
            known={site: x[index] for site, x in known.items()},
            must_fire=False,
        )

    return EditedRun(
        batch=batches[0],
        nodes=nodes,
        held=held,
        held_errors=held_errors,
        under=under,
        responses=dict(_responses(done[0], nodes)),
        error_responses={site: on_error(done[0], site)[0] for site in edited_errors(edit)},
    )


def _of_rows(patch: Patch, index: Int[Tensor, " rows"]) -> Patch:
    return lambda node: patch(node)[index]


def check_operations(analysis: Analysis, edit: Edit) -> None:
    """Raise `ValueError` for what cannot be done to the prompts of an analysis.

    That is an edit of other dictionaries, or to a patch that is not there, or of the error of a
    site that a dictionary writes before all that it reads has run; and of a feature that is edited
    at some of the sites that it writes only, for the sake of a norm that is known later.
    """
    check_edit(analysis.suite, edit)
    if any(op.needs == "patch" for op in edit.operations):
        check_patch("patch", analysis.prompts.patch)
    for site in edited_errors(edit):
        for name in analysis.suite.writing(site):
            require_reads_first(analysis.suite, name)
    for op in edit.operations:
        if op.node.kind != "feature":
            continue
        first = min(analysis.suite.writes_of(op.node.site))
        for site, _ in op.norm_below:
            if first < site:
                raise ValueError(
                    f"{op.node} is edited by the norm at {site}, and writes {first} before: it "
                    "would stand at two values, so there is no graph under this edit"
                )


def edited_errors(edit: Edit) -> list[Site]:
    """The sites whose errors an edit names."""
    return sorted({Site.parse(op.node.site) for op in edit.operations if op.node.kind == "error"})


def edited_names(edit: Edit) -> list[str]:
    """The dictionaries whose features an edit names."""
    named = (op.node.site for op in edit.operations if op.node.kind == "feature")
    return list(dict.fromkeys(named))


def _edited(
    analysis: Analysis, batch: Batch, edit: Edit, patch: Patch | None
) -> tuple[RecordedRun, EditedPass]:
    """A run under the edit; what counts as a norm outlier is as in the plain run."""
    model, suite = analysis.model, analysis.suite
    outlier = run_plain(model, suite, batch).outlier
    sites = {s for name in edited_names(edit) for s in suite.writes_of(name)}
    sites.update(edited_errors(edit))
    normed = {site for op in edit.operations for site, _ in op.norm_below}
    with (
        applied(model, suite, edit, patch=patch, must_fire=False),
        capture_arriving(model, sites | normed) as arriving,
    ):
        values, logits, arguments = site_values(model, suite, batch)
    arriving = values | arriving
    read = {name: suite.read(name, arriving) for name in suite}
    done = operated(suite, edit, patch, batch, arriving)
    watched = {s for op in edit.operations if op.when for s in suite.reads_of(op.when.node.site)}
    known = {site: arriving[site] for site in normed | watched | read_elsewhere(suite)}
    run = RecordedRun(values, read, outlier, logits, arguments, {}, partial(standing, done), known)
    return run, done


def _responses(done: EditedPass, nodes: CleanAndPatchRuns) -> Iterator[tuple[str, Features]]:
    """Of the features of each dictionary that is edited, how far they respond, less 1."""
    for name in edited_names(done.edit):
        plan, clean = done.plan(name), nodes.clean.encoded[name]
        assert plan is not None, "the edit names its features"
        to = clean if nodes.patch is None else nodes.patch.encoded[name]
        index, before, changed, first = _both(plan, clean, to)
        responses = torch.where(first, _secant(done, plan, index, before, changed) - 1, 0.0)
        if looks_at_all(plan, clean):
            yield name, Features.of_coordinates(responses)
        else:
            yield name, Features(index.expand(responses.shape), responses, clean.width)


def _both(
    plan: Plan, clean: Features, to: Features
) -> tuple[Tensor, Chosen, Chosen, Bool[Tensor, "..."]]:
    """The features looked at, their values in two runs, and whether a slot is a feature's first."""
    whole = torch.ones(1, dtype=torch.bool, device=clean.index.device)
    if looks_at_all(plan, clean):
        every = torch.arange(clean.width, device=clean.index.device)
        return every, clean.dense(), to.dense(), whole
    if not plan.on_slots:
        return plan.rows, plan.of_named(clean), plan.of_named(to), whole
    # Both with the features of both, so that each has a feature in the same slot.
    nothing = torch.zeros((), device=clean.index.device)
    here = clean.plus(to.times(nothing)).coalesced()
    there = clean.times(nothing).plus(to).coalesced()
    first = F.pad(here.index[..., 1:] != here.index[..., :-1], (1, 0), value=True)
    return here.index, here.value, there.value, first


def _secant(done: EditedPass, plan: Plan, index: Tensor, before: Chosen, changed: Chosen) -> Chosen:
    """Change of what the operations leave over the change of what they are given."""
    with torch.enable_grad():
        leaf = before.detach().requires_grad_()
        after = done.after(plan, index, leaf)
        (slope,) = torch.autograd.grad(after.sum(), leaf, allow_unused=True, materialize_grads=True)
    change = changed - before
    ratio = (done.after(plan, index, changed) - after.detach()) / torch.where(
        change == 0, 1, change
    )
    return torch.where(change == 0, slope, ratio)
