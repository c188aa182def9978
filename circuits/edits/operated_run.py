"""Prompts under the operations of an edit: where they leave each node, and how it answers.

A node stands at what the operations leave of it. One that they pin (to zero, a mean, a value, the
patch's) stands still. The others keep their effects, and answer what they read as far as the
operations let them,

    f_i' = o(f_i)        response = (o(f_i on patch) - o(f_i)) / (f_i on patch - f_i)

or the derivative of o, where f_i is the same on both prompts or there is none to go to: v for
`scale`, 1 for `add`, what lies within its range for `clamp`.

Axes: `batch` prompts, `pos` columns, `chosen` the features looked at of one dictionary: those that
are named, the slots of a token, or all there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.recorded import Decomposed, Run, decompose, run_plain, site_values
from circuits.attribution.state import check_patch
from circuits.edits.edited_run import EditedRun
from circuits.edits.patch import patch_values
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.nodes import Node
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit import Patch, applied, check
from saes.edit_file import Edit, Operation, Where
from saes.edit_steps import Plan, Step, plan_of
from saes.features import Features
from saes.firing import tokens_at
from saes.intervention import require_reads_first
from saes.operations import kind_of
from saes.suite import Suite

Chosen = Float[Tensor, "batch pos chosen"]


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
    runs: list[Run] = []
    done: list[Operations] = []
    for batch in (prompts.clean, prompts.patch):
        if batch is not None:
            run, operations = _edited(analysis, batch.rows(rows).to(device_of(model)), edit, patch)
            runs.append(run)
            done.append(operations)
    nodes = decompose(suite, *runs, reference=analysis.config.reference)
    # Moved to the patch run, what that pins elsewhere is on its way there.
    both = done if analysis.config.reference == "patch" else done[:1]

    def held(name: str, f: Features) -> Bool[Tensor, "batch pos slots"]:
        return torch.stack([each.pinned(name, f.index) for each in both]).all(0)

    def held_errors(site: Site) -> Bool[Tensor, "batch pos"]:
        return torch.stack([each.on_error(site)[1] for each in both]).all(0)

    def under(index: Int[Tensor, " rows"]):
        return applied(
            model,
            suite,
            edit,
            patch=None if patch is None else _of_rows(patch, index),
            known={site: x[index] for site, x in runs[0].arriving.items()},
            must_fire=False,
        )

    return EditedRun(
        batch=done[0].batch,
        nodes=nodes,
        held=held,
        held_errors=held_errors,
        under=under,
        responses=dict(_responses(done[0], nodes)),
        error_responses={site: done[0].on_error(site)[0] for site in edited_errors(edit)},
    )


def _of_rows(patch: Patch, index: Int[Tensor, " rows"]) -> Patch:
    return lambda node: patch(node)[index]


def check_operations(analysis: Analysis, edit: Edit) -> None:
    """Raise `ValueError` for what cannot be done to the prompts of an analysis.

    That is an edit of other dictionaries, or to a patch that is not there, or of the error of a
    site that a dictionary writes before all that it reads has run.
    """
    check(analysis.suite, edit)
    if any(op.needs == "patch" for op in edit.operations):
        check_patch("patch", analysis.prompts.patch)
    for site in edited_errors(edit):
        for name in analysis.suite.writing(site):
            require_reads_first(analysis.suite, name)


def edited_errors(edit: Edit) -> list[Site]:
    """The sites whose errors an edit names."""
    return sorted({Site.parse(op.node.site) for op in edit.operations if op.node.kind == "error"})


def edited_names(edit: Edit) -> list[str]:
    """The dictionaries whose features an edit names."""
    named = (op.node.site for op in edit.operations if op.node.kind == "feature")
    return list(dict.fromkeys(named))


def _edited(
    analysis: Analysis, batch: Batch, edit: Edit, patch: Patch | None
) -> tuple[Run, "Operations"]:
    """A run under the edit; what counts as a norm outlier is as in the plain run."""
    model, suite = analysis.model, analysis.suite
    outlier = run_plain(model, suite, batch).outlier
    sites = {s for name in edited_names(edit) for s in suite.writes_of(name)}
    sites.update(edited_errors(edit))
    with (
        applied(model, suite, edit, patch=patch, must_fire=False),
        capture_arriving(model, sites) as arriving,
    ):
        values, logits, arguments = site_values(model, suite, batch)
    arriving = values | arriving
    read = {name: suite.read(name, arriving) for name in suite}
    operations = Operations(suite=suite, edit=edit, patch=patch, batch=batch, read=read)
    known = {site: arriving[site] for site in suite.reads}
    run = Run(values, read, outlier, logits, arguments, {}, operations.standing, known)
    return run, operations


@dataclass(frozen=True, kw_only=True, eq=False)
class Operations:
    """What the operations of an edit do to the nodes of one run of some prompts."""

    suite: Suite
    edit: Edit
    patch: Patch | None
    batch: Batch
    read: dict[str, Float[Tensor, "batch pos d_source"]]
    "what arrives at each dictionary"
    _plans: dict[str, Plan | None] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> Int[Tensor, "batch pos"]:
        """Each token's number in its prompt, -1 for padding."""
        mask = self.batch.mask
        return (mask.long().cumsum(-1) - 1).masked_fill(~mask, -1)

    @cached_property
    def _at(self) -> dict[tuple[Where | tuple[int, ...], str], Bool[Tensor, "batch pos"]]:
        return {}

    def at(self, op: Operation) -> Bool[Tensor, "batch pos"]:
        """The tokens that an operation is done at, its node's own position aside."""
        key = op.positions, repr(op.when)
        if key not in self._at:
            lengths = self.batch.mask.sum(-1, keepdim=True)
            found = tokens_at(op.positions, self.tokens, lengths)
            if op.when is not None:
                name, feature = op.when.node.site, int(op.when.node.feature)
                f = self.suite[name].encode(self.read[name])
                value = f.of(torch.tensor([feature], device=f.index.device))[..., 0]
                found = found & (value > op.when.above)
            self._at[key] = found
        return self._at[key]

    def plan(self, name: str) -> Plan | None:
        """What is done to the features of a dictionary; None where nothing is."""
        if name not in self._plans:
            width, device = self.suite[name].n_features, self.tokens.device
            self._plans[name] = plan_of(name, self.edit.operations, width, device)
        return self._plans[name]

    def standing(self, name: str, f: Features) -> Features:
        """What the operations leave of the features `f` of a dictionary that arrive."""
        plan = self.plan(name)
        if plan is None:
            return f
        if _dense(plan, f):
            every = torch.arange(f.width, device=f.index.device)
            return Features.of_coordinates(self.after(plan, every, f.dense()))
        if plan.on_slots:
            return replace(f, value=self.after(plan, f.index, f.value))
        others = f.times(plan.column[f.index] == 0)
        value = self.after(plan, plan.rows, plan.of_named(f))
        return others.plus(Features(plan.rows.expand(value.shape), value, f.width))

    def after(self, plan: Plan, index: Int[Tensor, "*any chosen"], before: Chosen) -> Chosen:
        """The features `index`, at `before`, after every operation on them."""
        found = before
        for step in plan.steps:
            op = step.operation
            changed = kind_of(op.do).become(found, op.value, self._to(step, plan, index))
            found = torch.where(self._where(step, index), changed, found)
        return found

    def _where(self, step: Step, index: Tensor) -> Bool[Tensor, "batch pos chosen"]:
        return self.at(step.operation).unsqueeze(-1) & step.at(index, self.tokens)

    def _to(self, step: Step, plan: Plan, index: Tensor) -> Tensor | None:
        """What each of the features `index` goes to, where a step says so."""
        if (needs := step.operation.needs) is None:
            return None
        if step.every:
            return self._known(step.operation.node, needs).to(index.device)[..., index]
        found = self._known(step.nodes[0], needs).new_zeros(1, 1, len(plan.named) + 1)
        for node in step.nodes:
            value = self._known(node, needs)
            found = found.expand(*torch.broadcast_shapes(found.shape[:-1], value.shape), -1).clone()
            found[..., int(plan.column[int(node.feature)])] = value
        return found.to(index.device)[..., plan.column[index]]

    def _known(self, node: Node, needs: str) -> Tensor:
        if needs == "mean":
            return torch.as_tensor(self.edit.mean_of(node))
        assert self.patch is not None, "asked for before"
        return self.patch(node)

    def pinned(
        self, name: str, index: Int[Tensor, "*#any chosen"]
    ) -> Bool[Tensor, "batch pos chosen"]:
        """Which features become something that does not depend on what they are."""
        plan, shape = self.plan(name), (*self.tokens.shape, index.shape[-1])
        found = torch.zeros(shape, dtype=torch.bool, device=index.device)
        for step in () if plan is None else plan.steps:
            if kind_of(step.operation.do).pins:
                found = found | self._where(step, index)
        return found

    def on_error(self, site: Site) -> tuple[Float[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """How far the error of a site answers the one that arrives, and where it is pinned."""
        answers = torch.ones_like(self.tokens, dtype=next(iter(self.read.values())).dtype)
        pinned = torch.zeros_like(self.tokens, dtype=torch.bool)
        for op in self.edit.operations:
            if op.node.kind != "error" or Site.parse(op.node.site) != site:
                continue
            at = self.at(op) & self.own_position(op)
            if kind_of(op.do).pins:
                answers, pinned = answers.masked_fill(at, 0.0), pinned | at
            else:
                answers = torch.where(at, kind_of(op.do).become(answers, op.value, None), answers)
        return answers, pinned

    def own_position(self, op: Operation) -> Bool[Tensor, "batch pos"]:
        """The tokens at the position of an operation's node, less those that are left out."""
        own, tokens = op.node.position, self.tokens
        found = tokens >= 0 if own is None else tokens == own
        for node in op.besides:
            found = found & (tokens != node.position)
        return found


def _dense(plan: Plan, f: Features) -> bool:
    """Whether features that are off are looked at too, all of them."""
    return f.whole or (plan.of_every and not plan.on_slots)


def _responses(done: Operations, nodes: Decomposed) -> Iterator[tuple[str, Features]]:
    """Of the features of each dictionary that is edited, how far they answer, less 1."""
    for name in edited_names(done.edit):
        plan, clean = done.plan(name), nodes.clean.encoded[name]
        assert plan is not None, "the edit names its features"
        to = clean if nodes.patch is None else nodes.patch.encoded[name]
        index, before, moved, first = _both(plan, clean, to)
        answers = torch.where(first, _secant(done, plan, index, before, moved) - 1, 0.0)
        if _dense(plan, clean):
            yield name, Features.of_coordinates(answers)
        else:
            yield name, Features(index.expand(answers.shape), answers, clean.width)


def _both(
    plan: Plan, clean: Features, to: Features
) -> tuple[Tensor, Chosen, Chosen, Bool[Tensor, "..."]]:
    """The features looked at, their values in two runs, and whether a slot is a feature's first."""
    whole = torch.ones(1, dtype=torch.bool, device=clean.index.device)
    if _dense(plan, clean):
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


def _secant(done: Operations, plan: Plan, index: Tensor, before: Chosen, moved: Chosen) -> Chosen:
    """Change of what the operations leave over the change of what they are given."""
    with torch.enable_grad():
        leaf = before.detach().requires_grad_()
        after = done.after(plan, index, leaf)
        (slope,) = torch.autograd.grad(after.sum(), leaf, allow_unused=True, materialize_grads=True)
    change = moved - before
    ratio = (done.after(plan, index, moved) - after.detach()) / torch.where(change == 0, 1, change)
    return torch.where(change == 0, slope, ratio)
