"""Set nodes of prompts to other values while the model runs; in any text `saes.edit` does it.

At a site that dictionaries write, x = sum of f @ W_dec + b_dec + error. Setting a feature moves x
by (f_i' - f_i) W_dec_i, at every site that its dictionary writes, whatever else is there; setting
the error moves x by error' - error. Each site is decomposed as it arrives, under whatever was set
upstream: features that are left alone follow what they read.

Axes: `rows` rows of a pass, `circuits` sets of nodes that are run side by side, each in as many
rows as there are prompts; `pos` positions, or entries of a table of them.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import Activation, HookFunction, capture, intervene
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from saes.features import Features
from saes.nodes import NodeSet
from saes.suite import Suite

TableIndex = Int[Tensor, "rows pos"]
"For each token of a pass, which entry of a table of positions it goes by."


@dataclass(frozen=True)
class Spared:
    """Norm outliers, which are left as they arrive (see `circuits.attribution.state`)."""

    at: Bool[Tensor, " pos"]
    "positions at which they are; of length 1 where it is every one"
    known: Bool[Tensor, "rows tokens"] | None = None
    "which they are, where the prompts are known"
    limits: Mapping[Site, float] | None = None
    "else the norms above which a token is one, at each site that is read or written"

    def rows(self, index: Int[Tensor, " rows"]) -> "Spared":
        return self if self.known is None else replace(self, known=self.known[index])

    def tokens(
        self, values: Mapping[Site, Activation], entry: TableIndex | None
    ) -> Bool[Tensor, "rows pos"]:
        """Those among the tokens whose tensors are `values`."""
        here = self.at if entry is None or len(self.at) == 1 else self.at[entry]
        if self.known is not None:
            return self.known & here
        assert self.limits is not None, "outliers are known, or told by limits"
        found = [values[s].float().norm(dim=-1) > limit for s, limit in self.limits.items()]
        return torch.stack(found).any(0) & here


@dataclass(frozen=True)
class Baseline:
    """What nodes are set to; axes of length 1 are the same for all rows, or all positions."""

    features: Mapping[str, Features]
    "by dictionary, `[#rows, #pos, slots]`; those of a dictionary that is left out go to zero"
    errors: Mapping[Site, Float[Tensor, "#rows #pos d_model"]]
    "by site; those of a site that is left out go to zero"
    spared: Mapping[str, Spared]
    "by dictionary and by site written, where there are any"
    skips: frozenset[str] = frozenset()
    "dictionaries whose skip connection acts where the error of a site is set; of others it is "
    "a part of the error"

    def rows(self, index: Int[Tensor, " rows"]) -> "Baseline":
        """Of each prompt in `index`, repeats allowed."""
        return Baseline(
            {n: f if len(f.value) == 1 else f[index] for n, f in self.features.items()},
            {s: e if len(e) == 1 else e[index] for s, e in self.errors.items()},
            {k: s.rows(index) for k, s in self.spared.items()},
            self.skips,
        )


@contextmanager
def setting(
    model: TransformerBridge,
    suite: Suite,
    chosen: Sequence[NodeSet],
    baseline: Baseline,
    *,
    entry: Callable[[], TableIndex] | None = None,
    plain: Mapping[str, Features] | None = None,
    known: Mapping[Site, Activation] | None = None,
    must_run: bool = True,
) -> Generator[None, None, None]:
    """Set, inside the block, the nodes of `chosen` to their `baseline`.

    The rows of a pass are as many blocks as there are sets, one after another. Positions are the
    columns of the pass; with `entry`, called in every pass, sets and baseline go by a table of
    positions of which it says what each token goes by.

    Dictionaries in `plain` have those features on these rows, whatever runs: those that read what
    is not run again, and those that write a site before all that they read has run, as a
    crosscoder does.

    Passes that begin in the middle of the model take what arrives before that from `known`.

    Sites where nothing is set are not touched. Padding is set like the rest: no real token reads
    it. `must_run` is as that of `hooked_qwen.hooks.intervene`.

    Raises `ValueError` for a dictionary of the latter kind that is not in `plain`, and for a
    baseline of single rows with a table of positions.
    """
    by_row = any(len(f.value) > 1 for f in baseline.features.values())
    if entry is not None and by_row:
        raise ValueError(
            "the baseline has a row for each prompt, and the passes are of any text: give one that "
            "is the same for all rows"
        )
    chosen = [some.to(device_of(model)) for some in chosen]
    at = sorted({site for some in chosen for site in touched(suite, some)})
    read: set[Site] = set()
    for name in suite:
        if not any(_moves(chosen, name, site) for site in suite.writes_of(name)):
            continue
        if plain is not None and name in plain:
            continue
        require_reads_first(suite, name)
        read.update(suite.reads_of(name))
    sparing = [baseline.spared[str(site)] for site in at if str(site) in baseline.spared]
    normed = {s for spared in sparing for s in spared.limits or ()}
    run = _Pass(suite, chosen, baseline, entry, plain or {}, {})
    with ExitStack() as stack:
        elsewhere = (read | normed) - set(at)
        if elsewhere:
            seen = stack.enter_context(capture(model, elsewhere, must_run=must_run))
            run = replace(run, seen=seen)
        run.seen.update(known or {})
        edits = {site: run.edit(site) for site in at}
        stack.enter_context(intervene(model, edits, must_run=must_run))
        yield


def touched(suite: Suite, chosen: NodeSet) -> list[Site]:
    """The sites whose tensors change when the nodes of a set do."""
    found = {site for site in suite.writes if chosen.has_error(site)}
    for name in suite:
        if chosen.has_features(name):
            found.update(suite.writes_of(name))
    return sorted(found, key=attrgetter("depth"))


def _moves(chosen: Sequence[NodeSet], name: str, site: Site) -> bool:
    """Whether what a dictionary writes to one of its sites is changed by any of the sets."""
    return any(some.has_features(name) or some.has_error(site) for some in chosen)


def reads_first(suite: Suite, name: str) -> bool:
    """Whether all that a dictionary reads has run when it first writes."""
    return max(suite.reads_of(name)) <= min(suite.writes_of(name))


def require_reads_first(suite: Suite, name: str) -> None:
    """Raise `ValueError` for a dictionary whose features cannot be set in any text."""
    if not reads_first(suite, name):
        raise ValueError(
            f"{name} writes {min(suite.writes_of(name))} before all that it reads has run: its "
            "features can be set on prompts that were run before, not in any other text"
        )


def skipped(suite: Suite, name: str, values: Mapping[Site, Activation]) -> dict[Site, Activation]:
    """What the skip connection of a dictionary that has one adds at the sites that it writes."""
    W_skip = suite[name].W_skip
    assert W_skip is not None, f"{name} has no skip connection"
    return suite[name].by_site(suite.read(name, values) @ W_skip.T)


@dataclass(frozen=True)
class _Pass:
    """What the edits of one block share."""

    suite: Suite
    chosen: Sequence[NodeSet]
    baseline: Baseline
    entry: Callable[[], TableIndex] | None
    plain: Mapping[str, Features]
    seen: dict[Site, Activation]

    def edit(self, site: Site) -> HookFunction:
        """The site is decode(f) + error: where the error stays, only features are moved."""
        names = self.suite.writing(site)
        moving = [name for name in names if _moves(self.chosen, name, site)]

        def change(value: Activation) -> Activation:
            self.seen[site] = value
            entry = None if self.entry is None else self.entry()
            columns = torch.arange(value.shape[1], device=value.device)
            position = columns.expand(value.shape[:2]) if entry is None else entry
            error = self._chosen(lambda some, at: some.error(site, at), position)
            found = value
            if any(some.has_error(site) for some in self.chosen):
                to = sum(self.suite[n].by_site(self.suite[n].b_dec)[site] for n in names)
                if site in self.baseline.errors:
                    to = self._entries(self.baseline.errors[site], entry) + to
                to = to + self._skipped(names, site)
                found = torch.where(error.unsqueeze(-1), to, value)
            for name in moving:
                found = found + self._written(name, site, error, position, entry)
            spared = self.baseline.spared.get(str(site))
            if spared is None:
                return found
            kept = spared.tokens(self.seen, entry).unsqueeze(-1)
            return torch.where(kept, value, found)

        return change

    def _skipped(self, names: Sequence[str], site: Site) -> Activation | float:
        """What skip connections add that are no part of the error."""
        found = 0.0
        for name in names:
            if name in self.baseline.skips:
                found = found + skipped(self.suite, name, self.seen)[site]
        return found

    def _written(
        self,
        name: str,
        site: Site,
        error: Bool[Tensor, "rows pos"],
        position: TableIndex,
        entry: TableIndex | None,
    ) -> Activation:
        """What the features that are set add to the site, less what they wrote."""
        f, x = self.plain.get(name), None
        if f is None:
            x = self.suite.read(name, self.seen)
            f = self.suite[name].encode(x.detach())
        chosen = self._chosen(lambda some, at, i: some.feature(name, i, at), position, f.index)
        # Where the error is set, the tensor holds no feature yet: those that stay are written.
        factor = error.unsqueeze(-1).to(f.value) - chosen.to(f.value)
        if x is not None and x.requires_grad:
            moved = _WrittenByFeatures.apply(x, f, factor, self.suite, name)
        else:
            moved = self.suite[name].write(f.times(factor))
        at_site = self.suite[name].by_site(moved)[site]
        return at_site + self._set_to(name, site, position, entry)

    def _set_to(
        self, name: str, site: Site, position: TableIndex, entry: TableIndex | None
    ) -> Float[Tensor, "#rows #pos d_model"]:
        """What the chosen features write at what they are set to.

        A baseline that is the same for all rows is written once for each set of nodes.
        """
        dictionary, to = self.suite[name], self.baseline.features.get(name)
        if to is None or not to.slots:
            return dictionary.W_dec.new_zeros(1, 1, 1)
        if len(to.value) > 1:
            to = to.expand(*position.shape)
            chosen = self._chosen(lambda some, at, i: some.feature(name, i, at), position, to.index)
            return dictionary.by_site(dictionary.write(to.times(chosen)))[site]
        table = torch.arange(to.value.shape[1], device=position.device)
        if to.value.shape[1] == 1 and entry is None:
            # One baseline for every position, but sets go by position.
            table = position[0]
        parts = []
        for some in self.chosen:
            here = to[0].expand(len(table)) if to.value.shape[1] == 1 else to[0]
            chosen = some.feature(name, here.index, table)
            parts.append(dictionary.by_site(dictionary.write(here.times(chosen)))[site])
        rows = torch.stack(parts).repeat_interleave(len(position) // len(parts), 0)
        if entry is None:
            return rows
        return rows.gather(1, entry.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))

    def _chosen(
        self, ask: Callable[..., Tensor], position: TableIndex, index: Tensor | None = None
    ) -> Bool[Tensor, "rows pos *slots"]:
        """What each set says of its own block of rows."""
        size = len(position) // len(self.chosen)
        inputs = (position,) if index is None else (position, index)
        blocks = zip(*(x.split(size) for x in inputs), strict=True)
        return torch.cat(
            [ask(some, *block) for some, block in zip(self.chosen, blocks, strict=True)]
        )

    def _entries(
        self, error: Float[Tensor, "#rows #table d_model"], entry: TableIndex | None
    ) -> Float[Tensor, "#rows #pos d_model"]:
        """The baseline of each token, where a table of positions says which it is."""
        return error if entry is None or error.shape[1] == 1 else error[0][entry]


class _WrittenByFeatures(torch.autograd.Function):
    """What features `f` of `x`, times `factor`, write; those that are on respond one to one.

    The dictionary is asked for again on the way back: a pass through many layers does not hold
    those of all of them.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, f: Features, factor: Tensor, suite: Suite, name: str
    ) -> Tensor:
        responses = factor if f.whole else factor * (f.value != 0)
        ctx.save_for_backward(f.index, responses)
        ctx.suite, ctx.name, ctx.width, ctx.whole = suite, name, f.width, f.whole
        return suite[name].write(f.times(factor))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        index, responses = ctx.saved_tensors
        dictionary = ctx.suite[ctx.name]
        weights = Features(
            index, dictionary.along(grads[0], index) * responses, ctx.width, ctx.whole
        )
        return dictionary.read_by(weights), None, None, None, None
