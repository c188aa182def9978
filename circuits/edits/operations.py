"""What the operations of an edit leave of the nodes of one run, and where they pin them.

Axes: `batch` prompts, `pos` columns, `chosen` the features looked at of one dictionary: those that
are named, the slots of a token, or all there are.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.hooks import Activation
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit_file import Edit
from saes.edit_steps import Plan
from saes.edited_pass import EditedPass, Patch, of_error
from saes.features import Features
from saes.operations import kind_of
from saes.suite import Suite


def operated(
    suite: Suite, edit: Edit, patch: Patch | None, batch: Batch, arriving: Mapping[Site, Activation]
) -> EditedPass:
    """The operations of an edit in one whole run of some prompts."""
    mask = batch.mask
    return EditedPass(
        suite=suite,
        edit=edit,
        patch=patch,
        tokens=(mask.long().cumsum(-1) - 1).masked_fill(~mask, -1),
        lengths=mask.sum(-1, keepdim=True),
        arriving=arriving,
    )


def standing(done: EditedPass, name: str, f: Features) -> Features:
    """What the operations leave of the features `f` of a dictionary that arrive."""
    plan = done.plan(name)
    if plan is None:
        return f
    if looks_at_all(plan, f):
        every = torch.arange(f.width, device=f.index.device)
        return Features.of_coordinates(done.after(plan, every, f.dense()))
    if plan.on_slots:
        return replace(f, value=done.after(plan, f.index, f.value))
    others = f.times(plan.column[f.index] == 0)
    value = done.after(plan, plan.rows, plan.of_named(f))
    return others.plus(Features(plan.rows.expand(value.shape), value, f.width))


def pinned(
    done: EditedPass, name: str, index: Int[Tensor, "*#any chosen"]
) -> Bool[Tensor, "batch pos chosen"]:
    """Which features become something that does not depend on what they are."""
    plan, shape = done.plan(name), (*done.tokens.shape, index.shape[-1])
    found = torch.zeros(shape, dtype=torch.bool, device=index.device)
    for step in () if plan is None else plan.steps:
        if kind_of(step.operation.do).pins:
            found = found | done.where(step, index)
    return found


def on_error(
    done: EditedPass, site: Site
) -> tuple[Float[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """How far the error of a site responds to the one that arrives, and where it is pinned."""
    responses = torch.ones_like(done.tokens, dtype=done.arriving[site].dtype)
    held = torch.zeros_like(done.tokens, dtype=torch.bool)
    for op in of_error(done.edit, site):
        at = done.error_where(op)
        if kind_of(op.do).pins:
            responses, held = responses.masked_fill(at, 0.0), held | at
        else:
            responses = torch.where(at, kind_of(op.do).become(responses, op.value, None), responses)
    return responses, held


def looks_at_all(plan: Plan, f: Features) -> bool:
    """Whether features that are off are looked at too, all of them."""
    return f.whole or (plan.of_every and not plan.on_slots)
