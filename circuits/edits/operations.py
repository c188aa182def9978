"""What the operations of an edit leave of the nodes of one run, and where they pin them.

Axes: `batch` prompts, `pos` columns, `chosen` the features looked at of one dictionary: those that
are named, the slots of a token, or all there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit import Patch
from saes.edit_file import Edit, Operation
from saes.edit_steps import Plan, Step, plan_of
from saes.features import Features
from saes.firing import tokens_at
from saes.operations import kind_of
from saes.suite import Suite

Chosen = Float[Tensor, "batch pos chosen"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operations:
    """What the operations of an edit do to the nodes of one run of some prompts."""

    suite: Suite
    edit: Edit
    patch: Patch | None
    batch: Batch
    arriving: Mapping[Site, Float[Tensor, "batch pos d_model"]]
    "what arrives at the sites that dictionaries read, and at those whose norms are asked for"
    _plans: dict[str, Plan | None] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> Int[Tensor, "batch pos"]:
        """Each token's number in its prompt, -1 for padding."""
        mask = self.batch.mask
        return (mask.long().cumsum(-1) - 1).masked_fill(~mask, -1)

    @cached_property
    def _at(self) -> dict[tuple[Any, ...], Bool[Tensor, "batch pos"]]:
        return {}

    def at(self, op: Operation) -> Bool[Tensor, "batch pos"]:
        """The tokens that an operation is done at, its node's own position aside."""
        key = op.positions, op.when, op.norm_below
        if key not in self._at:
            lengths = self.batch.mask.sum(-1, keepdim=True)
            found = tokens_at(op.positions, self.tokens, lengths)
            if op.when is not None:
                name, feature = op.when.node.site, int(op.when.node.feature)
                f = self.suite[name].encode(self.suite.read(name, self.arriving))
                value = f.of(torch.tensor([feature], device=f.index.device))[..., 0]
                found = found & (value > op.when.above)
            for site, limit in op.norm_below:
                found = found & (self.arriving[site].float().norm(dim=-1) <= limit)
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
        if looks_at_all(plan, f):
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
        answers = torch.ones_like(self.tokens, dtype=self.arriving[site].dtype)
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


def looks_at_all(plan: Plan, f: Features) -> bool:
    """Whether features that are off are looked at too, all of them."""
    return f.whole or (plan.of_every and not plan.on_slots)
