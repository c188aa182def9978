"""Edits put into a model: features and errors set in every run of a block.

An operation makes feature i another value f_i' at some tokens, and every site that its dictionary
writes moves by (f_i' - f_i) W_dec_i, whatever else is there; an operation downstream sees what
arrives there. What an edit is, and its file, stand in `saes.edit_file`.

Many edits can be done in one pass, each in rows of its own (`applied_by_row`).

Axes: `rows` texts of a pass, `pos` its tokens, `nodes` the nodes of one dictionary that operations
name.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.positions import TextPositions, follow_positions
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.edit_checks import check_edit, check_patch, nodes_of, owner_of
from saes.edit_file import Condition, Edit, Operation
from saes.edit_steps import Plan
from saes.edited_pass import EditedPass, Patch, of_error
from saes.features import Features
from saes.firing import Firing
from saes.suite import Suite

__all__ = ["Condition", "Edit", "Operation", "applied", "applied_by_row"]

Redirect = Callable[[Site, Activation], Activation]
"What is added to a site's tensor in place of the move that an edit makes of it."
Standing = Callable[[str], Features | None]
"The features of a dictionary in the pass that runs, where they are not what it encodes."


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

        with circuits.applied(analysis.model, analysis.suite, half):
            analysis.model.generate("The keys near the cabinet")

    Raises `ValueError` for an edit of other dictionaries, for a node that the suite does not have,
    for a condition on what has not run yet, for a mean that the edit does not know, and for
    operations that go to the patch where none is given; and `RuntimeError` on leaving if no run
    reached a site that is edited, if an operation had no token to be done at, or if all of them
    together changed nothing, saying what came nearest. Where texts are run batch after batch, some
    of which the edit has no part in, it need not fire (`must_fire`). A control moves each site's
    tensor otherwise than the edit does, such as by as much in another direction (`redirect`).
    Passes that begin in the middle of the model take what arrives before that from `known`.
    """
    with applied_by_row(
        model,
        suite,
        [edit],
        patch=patch,
        must_fire=must_fire,
        redirect=redirect,
        known=known,
    ):
        yield


@contextmanager
def applied_by_row(
    model: TransformerBridge,
    suite: Suite,
    edits: Sequence[Edit | None],
    *,
    patch: Patch | None = None,
    must_fire: bool = True,
    redirect: Redirect | None = None,
    known: Mapping[Site, Activation] | None = None,
    standing: Standing | None = None,
) -> Generator[list[Firing | None], None, None]:
    """Do several edits at once: the rows of a pass are as many blocks as there are edits.

    The blocks have one size and stand in the order of the edits; those of None are left as they
    are. `standing` says which features a dictionary has where that is not what it encodes, as in a
    model whose MLPs are replaced; otherwise all is as in `applied`, for each edit on its own.
    Yields what becomes known of whether each edit did anything.
    """
    suite = suite.fitting(model)
    done = [edit for edit in edits if edit is not None]
    for edit in done:
        check_edit(suite, edit)
        check_patch(edit, patch)
    at = {site for edit in done for site in _edited(suite, edit)}
    elsewhere = {site for edit in done for site in _read(suite, edit)} - at
    with ExitStack() as stack:
        text = stack.enter_context(follow_positions(model))
        seen = (
            stack.enter_context(capture(model, elsewhere, must_run=must_fire)) if elsewhere else {}
        )
        seen.update(known or {})
        runs = [
            None
            if edit is None
            else _EditHooks(
                suite, edit, patch, _Block(n, len(edits)), text, seen, redirect, standing
            )
            for n, edit in enumerate(edits)
        ]
        changes = {site: _in_blocks(site, runs, seen) for site in sorted(at)}
        stack.enter_context(intervene(model, changes, must_run=must_fire))
        yield [None if run is None else run.firing for run in runs]
    if must_fire:
        for run in runs:
            if run is not None:
                run.firing.require(run.edit, model.tokenizer)


def _edited(suite: Suite, edit: Edit) -> set[Site]:
    """The sites whose tensors an edit changes."""
    named = {op.node.site for op in edit.operations if op.node.kind == "feature"}
    at = {s for name in named for s in suite.writes_of(name)}
    return at | {Site.parse(op.node.site) for op in edit.operations if op.node.kind == "error"}


def _read(suite: Suite, edit: Edit) -> set[Site]:
    """The sites whose tensors it goes by."""
    names = {owner_of(suite, node) for op in edit.operations for node in nodes_of(op)}
    names |= {name for site in _edited(suite, edit) for name in suite.writing(site)}
    read = {s for name in names for s in suite.reads_of(name)}
    return read | {s for op in edit.operations for s, _ in op.norm_below}


def _in_blocks(
    site: Site, runs: "Sequence[_EditHooks | None]", seen: dict[Site, Activation]
) -> Callable[[Activation], Activation]:
    """What happens to the tensor at a site, block by block."""
    changes = [
        run.change(site) if run is not None and site in _edited(run.suite, run.edit) else None
        for run in runs
    ]

    def edited(value: Activation) -> Activation:
        seen[site] = value
        parts = value.chunk(len(changes))
        found = [
            part if change is None else change(part)
            for part, change in zip(parts, changes, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    return edited


@dataclass(frozen=True)
class _Block:
    """One of the blocks of rows of a pass."""

    number: int
    of: int

    def __call__(self, rows: Tensor) -> Tensor:
        return rows if self.of == 1 else rows[self._slice(len(rows))]

    def features(self, f: Features) -> Features:
        return f if self.of == 1 else f[self._slice(len(f.value))]

    def _slice(self, rows: int) -> slice:
        size = rows // self.of
        return slice(self.number * size, (self.number + 1) * size)


class _InBlock(Mapping[Site, Activation]):
    """The rows of one block of what arrives at sites."""

    def __init__(self, seen: Mapping[Site, Activation], block: _Block) -> None:
        self._seen, self._block = seen, block

    def __getitem__(self, site: Site) -> Activation:
        return self._block(self._seen[site])

    def __iter__(self) -> Iterator[Site]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


class _EditHooks:
    """What the hooks of one edit share."""

    def __init__(
        self,
        suite: Suite,
        edit: Edit,
        patch: Patch | None,
        block: _Block,
        text: TextPositions,
        seen: dict[Site, Activation],
        redirect: Redirect | None,
        standing: Standing | None,
    ) -> None:
        self.suite, self.edit, self.patch, self.text = suite, edit, patch, text
        self.block, self.redirect, self.standing = block, redirect, standing
        self.arriving = seen if block.of == 1 else _InBlock(seen, block)
        self.firing = Firing()
        self._plans: dict[str, Plan | None] = {}
        self._now: tuple[Tensor, EditedPass] | None = None

    def change(self, site: Site) -> Callable[[Activation], Activation]:
        """What happens to the tensor at `site`."""
        names = self.suite.writing(site)
        on_error = bool(of_error(self.edit, site))
        named = {op.node.site for op in self.edit.operations if op.node.kind == "feature"}
        encoded = names if on_error else [name for name in names if name in named]

        def edited(value: Activation) -> Activation:
            done = self._pass()
            # A suite that keeps to a budget may have to read a dictionary when it is asked for it.
            both = [(self.suite[name], self._features(name)) for name in encoded]
            found = value
            if on_error:
                written = sum(d.by_site(d.decode(f))[site] for d, f in both)
                found = written + done.error_after(site, value - written)
            for name, (dictionary, f) in zip(encoded, both, strict=True):
                move = self._move(done, name, dictionary, f, site)
                if move is not None:
                    found = found + dictionary.by_site(move)[site]
            return found if self.redirect is None else value + self.redirect(site, found - value)

        return edited

    def _features(self, name: str) -> Features:
        """Those of a dictionary in the pass that runs, as they arrive."""
        stands = None if self.standing is None else self.standing(name)
        if stands is not None:
            return self.block.features(stands)
        return self.suite[name].encode(self.suite.read(name, self.arriving))

    def _move(
        self, done: EditedPass, name: str, dictionary: SparseDictionary, f: Features, site: Site
    ) -> Activation | None:
        """How much what a dictionary writes to a site changes; None where nothing names it."""
        plan = done.plan(name)
        if plan is None or plan.leaves(f):
            return None
        if not plan.of_every:
            index, before = plan.rows, plan.of_named(f)
        elif plan.on_slots:
            index, before = f.index, f.value
        else:
            index, before = torch.arange(f.width, device=f.index.device), f.dense()
        if plan.named:
            seen = plan.of_named(f) if plan.of_every else before
            self.firing.saw(plan.name, plan.named, seen)
        moved = done.after(plan, index, before, site) - before
        if plan.of_every and plan.on_slots:
            return dictionary.write(replace(f, value=moved))
        W_dec = dictionary.W_dec
        return moved @ (W_dec if plan.of_every else W_dec[plan.rows])

    def _pass(self) -> EditedPass:
        """The pass that runs now."""
        text = self.text
        if self._now is None or self._now[0] is not text.tokens:
            tokens, lengths = self.block(text.tokens), self.block(text.prompt_lengths)
            ids = None if text.ids is None else self.block(text.ids)
            self.firing.passed(tokens, lengths, ids)
            now = EditedPass(
                suite=self.suite,
                edit=self.edit,
                patch=self.patch,
                tokens=tokens,
                lengths=lengths.unsqueeze(-1),
                arriving=self.arriving,
                encoded=self._features,
                plans=self._plans,
                firing=self.firing,
            )
            self._now = text.tokens, now
        return self._now[1]
