"""Edits put into a model: features and errors set in every run of a block.

An operation makes feature i another value f_i' at some tokens, and every site that its dictionary
writes moves by (f_i' - f_i) W_dec_i, whatever else is there; an operation downstream sees what
arrives there. What an edit is, and its file, stand in `saes.edit_file`.

Axes: `rows` texts of a pass, `pos` its tokens, `nodes` the nodes of one dictionary that operations
name.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.positions import TextPositions, follow_positions
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.edit_file import Condition, Edit, Operation, Where
from saes.edit_steps import Plan, Step, plan_of
from saes.features import Features, weighted_rows
from saes.firing import Firing, tokens_at
from saes.identity import suite_hash, suite_told
from saes.intervention import require_reads_first
from saes.operations import OPERATIONS, kind_of
from saes.suite import Suite

__all__ = ["Condition", "Edit", "Operation", "Patch", "applied", "check", "check_node"]

Patch = Callable[[Node], Float[Tensor, "#rows #pos *width"]]
"What a node is on each token of the patch run: a feature's value, an error's vector."
Redirect = Callable[[Site, Activation], Activation]
"What is added to a site's tensor in place of the move that an edit makes of it."


@contextmanager
def applied(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    *,
    patch: Patch | None = None,
    must_fire: bool = True,
    redirect: Redirect | None = None,
    known: Mapping[Site, Activation] | None = None,
) -> Generator[None, None, None]:
    """Do the edit in every run inside the block, generation included, with a cache or without.

    Raises `ValueError` for an edit of other dictionaries, for a node that the suite does not have,
    for a condition on what has not run yet, for a mean that the edit does not know, and for
    operations that go to the patch where none is given; and `RuntimeError` on leaving if no run
    reached a site that is edited, if an operation had no token to be done at, or if all of them
    together changed nothing, saying what came nearest. Where texts are run batch after batch, some
    of which the edit has no part in, it need not fire (`must_fire`). A control moves each site's
    tensor otherwise than the edit does, such as by as much in another direction (`redirect`).
    Passes that begin in the middle of the model take what arrives before that from `known`.
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
    read |= {s for op in edit.operations for s, _ in op.norm_below}
    firing = Firing()
    with ExitStack() as stack:
        text = stack.enter_context(follow_positions(model))
        elsewhere = read - at
        seen = (
            stack.enter_context(capture(model, elsewhere, must_run=must_fire)) if elsewhere else {}
        )
        seen.update(known or {})
        run = _Run(suite, edit, patch, text, seen, firing, redirect)
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
        _check_norms(suite, operation)


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


def _check_norms(suite: Suite, operation: Operation) -> None:
    node = operation.node
    written = suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)
    for site, limit in operation.norm_below:
        if site > max(written):
            raise ValueError(
                f"the norm at {site} is known only after {max(written)}, where {node} is"
            )
        if not limit > 0:
            raise ValueError(f"{node} is edited where the norm at {site} is below {limit}: nowhere")


class _Run:
    """What the hooks of one block share."""

    def __init__(
        self,
        suite: Suite,
        edit: Edit,
        patch: Patch | None,
        text: TextPositions,
        seen: dict[Site, Activation],
        firing: Firing,
        redirect: Redirect | None,
    ) -> None:
        self.suite, self.edit, self.patch, self.text = suite, edit, patch, text
        self.seen, self.firing, self.redirect = seen, firing, redirect
        self._plans: dict[str, Plan | None] = {}
        self._pass: Tensor | None = None
        self._where: dict[Where | tuple[int, ...], Bool[Tensor, "rows pos"]] = {}

    def change(self, site: Site) -> Callable[[Activation], Activation]:
        """What happens to the tensor at `site`."""
        names = self.suite.writing(site)
        of_error = [
            op for op in self.edit.operations
            if op.node.kind == "error" and Site.parse(op.node.site) == site
        ]  # fmt: skip
        named = {op.node.site for op in self.edit.operations if op.node.kind == "feature"}
        encoded = names if of_error else [name for name in names if name in named]

        def edited(value: Activation) -> Activation:
            self.seen[site] = value
            # A suite that keeps to a budget may have to read a dictionary when it is asked for it.
            dictionaries = {name: self.suite[name] for name in encoded}
            features = {
                name: d.encode(self.suite.read(name, self.seen)) for name, d in dictionaries.items()
            }
            found = self._with_error(of_error, site, value, features) if of_error else value
            for name in encoded:
                move = self._move(dictionaries[name], features[name], site)
                if move is not None:
                    found = found + dictionaries[name].by_site(move)[site]
            return found if self.redirect is None else value + self.redirect(site, found - value)

        return edited

    def _features(self, name: str) -> Features:
        return self.suite[name].encode(self.suite.read(name, self.seen))

    def _plan(self, name: str, f: Features) -> Plan | None:
        if name not in self._plans:
            self._plans[name] = plan_of(name, self.edit.operations, f.width, f.index.device)
        return self._plans[name]

    def _move(self, dictionary: SparseDictionary, f: Features, site: Site) -> Activation | None:
        """How much what a dictionary writes to a site changes; None where nothing names it."""
        plan = self._plan(dictionary.name, f)
        if plan is None:
            return None
        if not plan.of_every:
            index, before = plan.rows, plan.of_named(f)
        elif plan.on_slots:
            index, before = f.index, f.value
        else:
            index, before = torch.arange(f.width, device=f.index.device), f.dense()
        if plan.named:
            seen = plan.of_named(f) if plan.of_every else before
            self.firing.saw(plan.name, plan.named, seen, self.text)
        after = before
        for step in plan.steps:
            where = self._tokens(step.operation, site).unsqueeze(-1) & step.at(
                index, self.text.tokens
            )
            changed = self._becomes(step.operation, after, self._to(step, plan))
            self.firing.did(step.operation, where, after, changed)
            after = torch.where(where, changed, after)
        W_dec = dictionary.W_dec
        if plan.of_every and plan.on_slots:
            return weighted_rows(replace(f, value=after - before), W_dec)
        return (after - before) @ (W_dec if plan.of_every else W_dec[plan.rows])

    def _to(self, step: Step, plan: Plan) -> Tensor | None:
        """What each feature that a plan names goes to, or each there is, where a step says so."""
        needs = step.operation.needs
        if needs is None:
            return None
        if step.every:
            return self._known(step.operation.node, needs)
        values = [self._known(node, needs) for node in step.nodes]
        values = [value.to(plan.rows.device) for value in torch.broadcast_tensors(*values)]
        features = [int(node.feature) for node in step.nodes]
        if plan.of_every:
            width, places = self.suite[plan.name].n_features, features
        else:
            width, places = len(plan.named), [plan.named.index(i) for i in features]
        found = values[0].new_zeros(*values[0].shape, width)
        found[..., places] = torch.stack(values, -1)
        return found

    def _known(self, node: Node, needs: str) -> Tensor:
        if needs == "mean":
            return torch.as_tensor(self.edit.mean_of(node))
        assert self.patch is not None, "asked for above"
        return self.patch(node)

    def _with_error(
        self,
        operations: Sequence[Operation],
        site: Site,
        value: Activation,
        features: Mapping[str, Features],
    ) -> Activation:
        """The tensor with the error set as the operations say."""
        written = sum(
            self.suite[n].by_site(self.suite[n].decode(f))[site] for n, f in features.items()
        )
        error, at = value - written, self.text.tokens
        for op in operations:
            where = self._tokens(op, site)
            if op.node.position is not None:
                where = where & (at == op.node.position)
            for node in op.besides:
                where = where & (at != node.position)
            where = where.unsqueeze(-1)
            to = None if op.needs is None else self._known(op.node, op.needs)
            changed = self._becomes(op, error, to)
            self.firing.did(op, where, error, changed)
            error = torch.where(where, changed, error)
        return written + error

    def _becomes(self, op: Operation, own: Tensor, to: Tensor | None) -> Tensor:
        return kind_of(op.do).become(own, op.value, to)

    def _tokens(self, op: Operation, site: Site) -> Bool[Tensor, "rows pos"]:
        """The tokens that an operation names at a site, its node's own position aside."""
        tokens = self.text.tokens
        if tokens is not self._pass:
            self._pass, self._where = tokens, {}
            self.firing.passed(self.text)
        if op.positions not in self._where:
            lengths = self.text.prompt_lengths.unsqueeze(-1)
            self._where[op.positions] = tokens_at(op.positions, tokens, lengths)
        found = self._where[op.positions]
        if op.when is not None:
            feature, name = int(op.when.node.feature), op.when.node.site
            value = self._features(name).of(torch.tensor([feature], device=found.device))
            self.firing.saw(name, (feature,), value, self.text)
            found = found & (value[..., 0] > op.when.above)
        for place, limit in op.norm_below:
            if not site < place:
                found = found & (self.seen[place].float().norm(dim=-1) <= limit)
        return found
