"""One pass of some texts under an edit: what its operations make of features and errors.

Axes: `rows` texts of the pass, `pos` its tokens, `chosen` the features looked at of one dictionary:
those that are named, the slots of a token, or all there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.hooks import Activation
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit_file import Edit, Operation
from saes.edit_steps import Plan, Step, plan_of
from saes.features import Features
from saes.firing import Firing, tokens_at
from saes.operations import kind_of
from saes.suite import Suite

Chosen = Float[Tensor, "rows pos chosen"]
Patch = Callable[[Node], Float[Tensor, "#rows #pos *width"]]
"What a node is on each token of the patch run: a feature's value, an error's vector."


@dataclass(frozen=True, kw_only=True, eq=False)
class EditedPass:
    """What the operations of an edit do in one pass."""

    suite: Suite
    edit: Edit
    patch: Patch | None
    tokens: Int[Tensor, "rows pos"]
    "each token's number in its text, -1 for padding"
    lengths: Int[Tensor, "rows 1"]
    "tokens of each text's prompt"
    arriving: Mapping[Site, Activation]
    "what arrives at the sites that conditions and norms are of, as far as the pass has run"
    encoded: Callable[[str], Features] | None = None
    "the features of a dictionary, where they are not those of what arrives"
    plans: dict[str, Plan | None] = field(default_factory=dict)
    "what is done to the features of each dictionary; the passes of one edit may share them"
    firing: Firing | None = None
    "what was done is noted there"
    _at: dict[Any, Bool[Tensor, "rows pos"]] = field(default_factory=dict)

    def plan(self, name: str) -> Plan | None:
        """What is done to the features of a dictionary; None where nothing is."""
        if name not in self.plans:
            width, device = self.suite[name].n_features, self.tokens.device
            self.plans[name] = plan_of(name, self.edit, width, device)
        return self.plans[name]

    def at(self, op: Operation, site: Site | None = None) -> Bool[Tensor, "rows pos"]:
        """The tokens that an operation is done at, its node's own position aside.

        At a site, norms of those after it are not known yet, and count for nothing.
        """
        norms = [(s, limit) for s, limit in op.norm_below if site is None or not site < s]
        key = op.positions, op.when, *norms
        if key not in self._at:
            found = tokens_at(op.positions, self.tokens, self.lengths)
            if op.when is not None:
                found = found & (self._value(op.when.node) > op.when.above)
            for place, limit in norms:
                found = found & (self.arriving[place].float().norm(dim=-1) <= limit)
            self._at[key] = found
        return self._at[key]

    def _value(self, node: Node) -> Float[Tensor, "rows pos"]:
        """A feature's value, which a condition asks for."""
        name, feature = node.site, int(node.feature)
        if self.encoded is None:
            f = self.suite[name].encode(self.suite.read(name, self.arriving))
        else:
            f = self.encoded(name)
        value = f.of(torch.tensor([feature], device=f.index.device))
        if self.firing is not None:
            self.firing.saw(name, (feature,), value)
        return value[..., 0]

    def after(
        self,
        plan: Plan,
        index: Int[Tensor, "*#any chosen"],
        before: Chosen,
        site: Site | None = None,
    ) -> Chosen:
        """The features `index`, at `before`, after every operation on them, as seen at `site`."""
        found = before
        for step in plan.steps:
            to = self._to(step, plan, index)
            found = self._become(step.operation, found, to, self.where(step, index, site))
        return found

    def where(
        self, step: Step, index: Int[Tensor, "*#any chosen"], site: Site | None = None
    ) -> Bool[Tensor, "rows pos chosen"]:
        """Which of the features `index` a step is done to, at which tokens."""
        return self.at(step.operation, site).unsqueeze(-1) & step.at(index, self.tokens)

    def error_after(
        self, site: Site, error: Float[Tensor, "rows pos d_model"]
    ) -> Float[Tensor, "rows pos d_model"]:
        """The error of a site after every operation on it."""
        for op in of_error(self.edit, site):
            to = None if op.needs is None else self._known(op.node, op.needs)
            error = self._become(op, error, to, self.error_where(op, site).unsqueeze(-1))
        return error

    def error_where(self, op: Operation, site: Site | None = None) -> Bool[Tensor, "rows pos"]:
        """The tokens that an operation on an error is done at."""
        found, tokens = self.at(op, site), self.tokens
        if op.node.position is not None:
            found = found & (tokens == op.node.position)
        for node in op.besides:
            found = found & (tokens != node.position)
        return found

    def _become(self, op: Operation, own: Tensor, to: Tensor | None, where: Tensor) -> Tensor:
        changed = kind_of(op.do).become(own, op.value, to)
        if self.firing is not None:
            self.firing.did(op, where, own, changed)
        return torch.where(where, changed, own)

    def _to(self, step: Step, plan: Plan, index: Tensor) -> Tensor | None:
        """What each of the features `index` goes to, where a step says so."""
        needs = step.operation.needs
        if needs is None:
            return None
        if needs == "mean":
            found = plan.means[step]
        elif step.every:
            found = self._known(step.operation.node, needs)
        else:
            found = plan.of_columns(step.nodes, [self._known(node, needs) for node in step.nodes])
        return found[..., index if step.every else plan.column[index]]

    def _known(self, node: Node, needs: str) -> Tensor:
        if needs == "mean":
            return torch.as_tensor(self.edit.mean_of(node))
        assert self.patch is not None, "asked for before"
        return self.patch(node)


def of_error(edit: Edit, site: Site) -> list[Operation]:
    """The operations on the error of a site, in their order."""
    errors = (op for op in edit.operations if op.node.kind == "error")
    return [op for op in errors if Site.parse(op.node.site) == site]
