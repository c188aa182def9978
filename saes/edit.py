"""Edits put into a model: features and errors set in every run of a block.

An operation makes feature i another value f_i' at some tokens, and every site that its dictionary
writes moves by (f_i' - f_i) W_dec_i, whatever else is there; an operation downstream sees what
arrives there. What an edit is, and its file, stand in `saes.edit_file`.

Axes: `rows` texts of a pass, `pos` its tokens, `nodes` the nodes of one dictionary that operations
name.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.positions import TextPositions, follow_positions
from hooked_qwen.sites import Site
from saes.edit_file import Condition, Edit, Operation
from saes.features import Features
from saes.firing import Firing
from saes.identity import suite_hash, suite_told
from saes.intervention import require_reads_first
from saes.operations import OPERATIONS, kind_of
from saes.suite import Suite

__all__ = ["Condition", "Edit", "Operation", "Patch", "applied", "check", "check_node"]

Patch = Callable[[Node], Float[Tensor, "#rows #pos *width"]]
"What a node is on each token of the patch run: a feature's value, an error's vector."


@contextmanager
def applied(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    *,
    patch: Patch | None = None,
    must_fire: bool = True,
) -> Generator[None, None, None]:
    """Do the edit in every run inside the block, generation included, with a cache or without.

    Raises `ValueError` for an edit of other dictionaries, for a node that the suite does not have,
    for a condition on what has not run yet, for a mean that the edit does not know, and for
    operations that go to the patch where none is given; and `RuntimeError` on leaving if no run
    reached a site that is edited, if an operation had no token to be done at, or if all of them
    together changed nothing, saying what came nearest. Where texts are run batch after batch, some
    of which the edit has no part in, it need not fire (`must_fire`).
    """
    suite = suite.fitting(model)
    check(suite, edit)
    needs_patch = [op.node for op in edit.operations if kind_of(op.do).needs == "patch"]
    if needs_patch and patch is None:
        raise ValueError(f"{needs_patch[0]} goes to the patch's value, and there is no patch here")
    names = {_owner(suite, node) for op in edit.operations for node in _nodes(op)}
    named = {op.node.site for op in edit.operations if op.node.kind == "feature"}
    at = {s for name in named for s in suite.writes_of(name)}
    at |= {Site.parse(op.node.site) for op in edit.operations if op.node.kind == "error"}
    read = {s for name in names for s in suite.reads_of(name)}
    read |= {s for site in at for name in suite.writing(site) for s in suite.reads_of(name)}
    firing = Firing()
    with ExitStack() as stack:
        text = stack.enter_context(follow_positions(model))
        elsewhere = read - at
        seen = (
            stack.enter_context(capture(model, elsewhere, must_run=must_fire)) if elsewhere else {}
        )
        run = _Run(suite, edit, patch, text, seen, firing)
        edits = {site: run.change(site) for site in sorted(at)}
        stack.enter_context(intervene(model, edits, must_run=must_fire))
        yield
    if must_fire:
        firing.require(edit, model.tokenizer)


def _nodes(operation: Operation) -> list[Node]:
    when = [operation.when.node] if operation.when else []
    return [operation.node, *when, *operation.besides]


def _owner(suite: Suite, node: Node) -> str:
    """The dictionary of a feature, or one that writes an error's site."""
    return node.site if node.kind == "feature" else suite.writing(Site.parse(node.site))[0]


def check(suite: Suite, edit: Edit) -> None:
    """Raise `ValueError` for an edit of other dictionaries, and for what it cannot do in these."""
    if edit.suite is not None and edit.suite != suite_hash(suite):
        raise ValueError(
            f"the edit is of the dictionaries {edit.suite_told()}, and these are "
            f"{suite_told(suite)}: feature numbers mean nothing in another suite"
        )
    if not edit.operations:
        raise ValueError("the edit has no operation: there is nothing to do")
    for operation in edit.operations:
        for node in _nodes(operation):
            check_node(suite, node)
        if operation.node.kind == "feature":
            require_reads_first(suite, operation.node.site)
        if OPERATIONS[operation.do].needs == "mean":
            _check_mean(suite, operation.node, edit)
        if operation.when is not None:
            _check_condition(suite, operation.node, operation.when)


def check_node(suite: Suite, node: Node) -> None:
    """Raise `ValueError` for what is no feature and no error of the suite."""
    known = list(suite) if node.kind == "feature" else [str(site) for site in suite.writes]
    if node.kind not in ("feature", "error") or node.site not in known:
        raise ValueError(f"there is no dictionary for {node}: the sites are {', '.join(known)}")
    if (
        node.kind == "feature"
        and node.feature != EVERY
        and not 0 <= int(node.feature) < suite[node.site].n_features
    ):
        size = suite[node.site].n_features
        raise ValueError(f"{node.site} has features 0 to {size - 1}, so there is no {node}")


def _check_mean(suite: Suite, node: Node, edit: Edit) -> None:
    mean = torch.as_tensor(edit.mean_of(node))
    wanted: tuple[int, ...] = ()
    if node.kind == "error":
        (name, *_) = suite.writing(Site.parse(node.site))
        size = suite[name].W_dec.shape[1] // len(suite.writes_of(name))
        wanted = (size,)
    elif node.feature == EVERY:
        wanted = (suite[node.site].n_features,)
    if tuple(mean.shape) != wanted:
        raise ValueError(
            f"the mean of {node} has shape {tuple(mean.shape)}, expected {wanted}: is the edit of "
            "another model?"
        )


def _check_condition(suite: Suite, node: Node, when: Condition) -> None:
    if when.node.kind != "feature" or when.node.feature == EVERY:
        raise ValueError(f"a condition is on one feature, not on {when.node}")
    written = suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)
    if max(suite.reads_of(when.node.site)) > min(written):
        raise ValueError(
            f"{when.node} is known only after {min(written)}, where {node} is: a condition is on "
            "what has run by then"
        )


@dataclass(frozen=True)
class _Run:
    """What the hooks of one block share."""

    suite: Suite
    edit: Edit
    patch: Patch | None
    text: TextPositions
    seen: dict[Site, Activation]
    firing: Firing
    "what was done where"
    plans: dict[str, "_Plan | None"] = field(default_factory=dict)
    "of each dictionary, as its first pass made it"

    def change(self, site: Site) -> Callable[[Activation], Activation]:
        """What happens to the tensor at `site`."""
        names = self.suite.writing(site)

        def edited(value: Activation) -> Activation:
            self.seen[site] = value
            features = {name: self._features(name) for name in names}
            found = self._with_error(site, value, features)
            for name in names:
                move = self._move(name, features[name])
                if move is not None:
                    found = found + self.suite[name].by_site(move)[site]
            return found

        return edited

    def _features(self, name: str) -> Features:
        return self.suite[name].encode(self.suite.read(name, self.seen))

    def _move(self, name: str, f: Features) -> Activation | None:
        """How much what a dictionary writes changes; None where no operation names it."""
        if name not in self.plans:
            self.plans[name] = _plan(self.edit, name, f)
        plan = self.plans[name]
        if plan is None:
            return None
        before = f.dense() if plan.rows is None else f.of(plan.rows)
        self.firing.saw(name, plan.features, before, self.text)
        after = before.clone()
        for alike, at in plan.steps:
            op = alike[0]
            own, where = after[..., at], self._where(op).unsqueeze(-1)
            if op.node.feature == EVERY:
                where = where & self._not_excepted(op, own)
            changed = self._becomes(alike, own)
            self.firing.did(op, where, own, changed)
            after[..., at] = torch.where(where, changed, own)
        W_dec = self.suite[name].W_dec
        return (after - before) @ (W_dec if plan.rows is None else W_dec[plan.rows])

    def _not_excepted(
        self, op: Operation, own: Float[Tensor, "rows pos features"]
    ) -> Bool[Tensor, "rows pos features"]:
        """Of every feature of a dictionary, those that the operation does not leave out."""
        found = torch.ones_like(own, dtype=torch.bool)
        for node in op.besides:
            here = self.text.tokens == node.position
            found[..., int(node.feature)] &= False if node.position is None else ~here
        return found

    def _with_error(
        self, site: Site, value: Activation, features: Mapping[str, Features]
    ) -> Activation:
        """The tensor with the error set as the operations say."""
        operations = [
            op for op in self.edit.operations
            if op.node.kind == "error" and Site.parse(op.node.site) == site
        ]  # fmt: skip
        if not operations:
            return value
        written = sum(
            self.suite[n].by_site(self.suite[n].decode(f))[site] for n, f in features.items()
        )
        error = value - written
        for op in operations:
            where, changed = self._where(op), self._becomes([op], error)
            for node in op.besides:
                where = where & (self.text.tokens != node.position)
            where = where.unsqueeze(-1)
            self.firing.did(op, where, error, changed)
            error = torch.where(where, changed, error)
        return written + error

    def _becomes(self, alike: Sequence[Operation], own: Tensor) -> Tensor:
        """What nodes become to which the same is done; features along the last axis."""
        (op, *_), kind, to = alike, kind_of(alike[0].do), None
        if kind.needs == "mean":
            means = [torch.as_tensor(self.edit.mean_of(each.node)) for each in alike]
            to = means[0] if means[0].dim() else torch.stack(means)
        elif kind.needs == "patch":
            assert self.patch is not None, "asked for above"
            to = self.patch(op.node)
            to = to if to.dim() == own.dim() else to.unsqueeze(-1)
        return kind.become(own, op.value, to)

    def _where(self, op: Operation) -> Bool[Tensor, "rows pos"]:
        """The tokens at which an operation is done."""
        at, lengths = self.text.tokens, self.text.prompt_lengths.unsqueeze(-1)
        found = at >= 0
        if op.node.position is not None:
            found = found & (at == op.node.position)
        if isinstance(op.positions, tuple):
            found = found & torch.isin(at, torch.tensor(op.positions, device=at.device))
        elif op.positions != "all":
            first = lengths - 1 if op.positions == "last" else lengths
            found = found & ((at < lengths) if op.positions == "prompt" else (at >= first))
        self.firing.reached(op, found)
        if op.when is not None:
            feature, site = int(op.when.node.feature), op.when.node.site
            value = self._features(site).of(torch.tensor([feature], device=at.device))
            self.firing.saw(site, (feature,), value, self.text)
            found = found & (value[..., 0] > op.when.above)
        return found


@dataclass(frozen=True)
class _Plan:
    """What is done to the features of one dictionary, in order."""

    features: Sequence[int]
    rows: Int[Tensor, " features"] | None
    "the same on the device; None where it is every one"
    steps: Sequence[tuple[Sequence[Operation], Any]]
    "operations that do the same to different features, and where these stand among `features`"


def _plan(edit: Edit, name: str, f: Features) -> _Plan | None:
    operations = [op for op in edit.operations if op.node.site == name]
    operations = [op for op in operations if op.node.kind == "feature"]
    if not operations:
        return None
    device = f.index.device
    named = tuple(dict.fromkeys(op.node.feature for op in operations))
    every = EVERY in named
    features = range(f.width) if every else tuple(map(int, named))
    column = {feature: i for i, feature in enumerate(features)}

    def at(alike: Sequence[Operation]) -> Any:
        if alike[0].node.feature == EVERY:
            return slice(None)
        return torch.tensor([column[int(op.node.feature)] for op in alike], device=device)

    steps = [(alike, at(alike)) for alike in _alike(operations)]
    return _Plan(features, None if every else torch.tensor(features, device=device), steps)


def _alike(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations in order, those together that do the same to different features."""
    found: list[list[Operation]] = []
    features: set[int | str] = set()
    for op in operations:
        alone = op.node.feature == EVERY or op.needs == "patch"
        again = op.node.feature in features or EVERY in features
        if found and not (alone or again) and _what(found[-1][0]) == _what(op):
            found[-1].append(op)
            features.add(op.node.feature)
        else:
            found.append([op])
            features = {EVERY if alone else op.node.feature}
    return found


def _what(op: Operation) -> tuple[Any, ...]:
    return op.do, op.value, op.positions, op.node.position, op.when
