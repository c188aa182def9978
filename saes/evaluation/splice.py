"""Run the model with tensors replaced, and sum what it then predicts of the next tokens.

One clean run of a few blocks of text serves every dictionary: an edited run starts from it at
the first layer that the edit concerns.

Axes: `batch` blocks of one pass, `pos` their tokens, `predicted` the tokens after the first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import BlockArguments, resume, run_recording, run_through, unembed
from hooked_qwen.hooks import Activation, HookFunction, capture, intervene
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier
from hooked_qwen.tokens import Batch
from saes.on_demand import InTurn, OnDemand

Mask = Bool[Tensor, "batch pos"]
SourceAndTarget = tuple[Site, Site]
"Source and target of a dictionary."
TargetMeans = Mapping[SourceAndTarget, Float[Tensor, "2 d_target"]]
"The target's mean: without norm outliers, and with them."
Sums = dict[str, Num[Tensor, " _"]]
"Sums over the tokens of each block, by name."


@dataclass(frozen=True)
class CleanRun:
    """The model as it is on a few blocks: tensors at the sites, and what it predicts."""

    tokens: Int[Tensor, "batch pos"]
    values: dict[Site, Activation]
    log_probs: Float[Tensor, "batch predicted vocabulary"]
    arguments: BlockArguments
    outliers: Mapping[SourceAndTarget, Mask]
    with_outliers: frozenset[SourceAndTarget]
    "where any of these tokens is an outlier"


@dataclass(frozen=True)
class Effect:
    """What an edited run predicts, summed over the tokens of each block, in nats."""

    ce: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]
    "from the clean to the edited distribution"


def is_outlier_pair(
    x: Float[Tensor, "*tokens d_source"], y: Float[Tensor, "*tokens d_target"]
) -> Bool[Tensor, "*tokens"]:
    """Tokens over ten times the median norm of these tokens, at the source or the target."""
    return is_outlier(x) | is_outlier(y)


def unpadded(tokens: Int[Tensor, "batch pos"]) -> Batch:
    """Rows of running text of one length as a batch."""
    return Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))


def pairs_of(dictionaries: InTurn) -> set[SourceAndTarget]:
    """What the dictionaries read and write."""
    return set(in_order(dictionaries))


def in_order(dictionaries: InTurn) -> list[SourceAndTarget]:
    """What each dictionary reads and writes; those that are read on demand are not read for it."""
    if isinstance(dictionaries, OnDemand):
        suite = dictionaries.suite
        return [(suite.reads_of(n)[0], suite.writes_of(n)[0]) for n in dictionaries.names]
    return [(d.source, d.target) for d in dictionaries]


def sites_of(pairs: Iterable[SourceAndTarget]) -> set[Site]:
    """Every site that is read or written."""
    return {site for pair in pairs for site in pair}


def site_means(
    model: TransformerBridge,
    dictionaries: InTurn,
    passes: Iterable[Int[Tensor, "_ pos"]],
) -> TargetMeans:
    """Means of the targets over the whole text, in a round of their own."""
    pairs = pairs_of(dictionaries)
    sites = sites_of(pairs)
    totals: dict[SourceAndTarget, Tensor] = {}
    counts: dict[SourceAndTarget, Tensor] = {}
    for tokens in passes if sites else ():
        with capture(model, sites) as values:
            run_through(model, unpadded(tokens), max(site.layer for site in sites))
        for source, target in pairs:
            key, inlier = (source, target), ~is_outlier_pair(values[source], values[target])
            keep = torch.stack([inlier, torch.ones_like(inlier)]).double()
            total = torch.einsum("cbp,bpd->cd", keep, values[target].double())
            totals[key] = totals.get(key, 0) + total
            counts[key] = counts.get(key, 0) + keep.sum((1, 2))
    return {key: totals[key] / counts[key].unsqueeze(-1) for key in totals}


def clean_run(
    model: TransformerBridge, pairs: Iterable[SourceAndTarget], tokens: Int[Tensor, "batch pos"]
) -> CleanRun:
    """One pass that keeps the sites of `pairs`, and what an edited run from any layer starts from.

    The device is waited for once, to know where there are outliers.
    """
    layers, pairs = range(len(model.blocks)), list(pairs)
    last = Site("resid_post", layers[-1])
    wanted = {*sites_of(pairs), last, *(Site("resid_pre", i) for i in layers)}
    with capture(model, wanted) as values:
        _, arguments = run_recording(model, unpadded(tokens))
    log_probs = unembed(model, values[last][:, :-1]).log_softmax(-1)
    outliers = {(x, y): is_outlier_pair(values[x], values[y]) for x, y in pairs}
    there = torch.stack([mask.any() for mask in outliers.values()]).tolist()
    where = frozenset(pair for pair, found in zip(outliers, there, strict=True) if found)
    return CleanRun(tokens.to(log_probs.device), values, log_probs, arguments, outliers, where)


def reference_sums(model: TransformerBridge, clean: CleanRun, means: TargetMeans) -> Sums:
    """What to hold a splice against: the clean run, and all targets at zero or at their mean."""
    mean = {target: value[0] for (_, target), value in means.items()}
    zero = {target: torch.zeros_like(value) for target, value in mean.items()}
    kept, replaced = _with_and_without(
        lambda keep: _ablate(model, clean, zero, keep), clean, list(means)
    )
    outliers = {target: clean.outliers[source, target] for source, target in means}
    at_mean = _ablate(model, clean, mean, outliers)
    picked = clean.log_probs.gather(-1, clean.tokens[:, 1:, None])
    return {
        "predicted": picked.new_ones(picked.shape).double().sum((1, 2)),
        "clean": -picked.double().sum((1, 2)),
        "zero": kept.ce,
        "zero_all": replaced.ce,
        "mean": at_mean.ce,
        "kl_zero": kept.kl,
        "kl_mean": at_mean.kl,
    }


def spliced_sums(model: TransformerBridge, clean: CleanRun, dictionaries: InTurn) -> Sums:
    """Cross-entropy and KL with the target of every dictionary replaced by its reconstruction.

    Each dictionary reads its source as the dictionaries before it left it.
    """
    pairs = in_order(dictionaries)
    kept, replaced = _with_and_without(
        lambda keep: _splice(model, clean, dictionaries, pairs, keep), clean, pairs
    )
    return {
        "spliced": kept.ce,
        "kl": kept.kl,
        "spliced_all": replaced.ce,
        "kl_all": replaced.kl,
    }


def _with_and_without(
    run: Callable[[Mapping[Site, Mask]], Effect], clean: CleanRun, pairs: Sequence[SourceAndTarget]
) -> tuple[Effect, Effect]:
    """The run that keeps the outliers, and the one that keeps nothing: often the same."""
    outliers = {target: clean.outliers[source, target] for source, target in pairs}
    kept = run(outliers)
    if clean.with_outliers.isdisjoint(pairs):
        return kept, kept
    return kept, run({site: torch.zeros_like(mask) for site, mask in outliers.items()})


def _ablate(
    model: TransformerBridge,
    clean: CleanRun,
    to: Mapping[Site, Float[Tensor, " d"]],
    keep: Mapping[Site, Mask],
) -> Effect:
    def replace(site: Site) -> HookFunction:
        return lambda y: torch.where(keep[site].unsqueeze(-1), y, to[site].to(y.dtype))

    with intervene(model, {site: replace(site) for site in to}):
        return _run_from(model, clean, min(site.layer for site in to))


def _splice(
    model: TransformerBridge,
    clean: CleanRun,
    dictionaries: InTurn,
    pairs: Sequence[SourceAndTarget],
    keep: Mapping[Site, Mask],
) -> Effect:
    elsewhere = {source for source, target in pairs if source != target}

    def replace(i: int) -> HookFunction:
        source, target = pairs[i]

        def edit(y: Activation) -> Activation:
            x = y if source == target else seen[source]
            return torch.where(keep[target].unsqueeze(-1), y, dictionaries[i](x))

        return edit

    edits = {target: replace(i) for i, (_, target) in enumerate(pairs)}
    # The capture is the inner one: a source that is also a target is read after its own edit.
    with intervene(model, edits), capture(model, elsewhere) as seen:
        return _run_from(model, clean, min(site.layer for site in {*edits, *elsewhere}))


def _run_from(model: TransformerBridge, clean: CleanRun, layer: int) -> Effect:
    """The model run again from block `layer` on, with the edits that are in place.

    One block of text is unembedded at a time: with a large vocabulary, logits are what fills
    the memory.
    """
    start = clean.values[Site("resid_pre", layer)]
    resid = resume(model, start, layer, clean.arguments)[:, :-1]
    ce, kl = [], []
    for row, following, expected in zip(resid, clean.tokens[:, 1:], clean.log_probs, strict=True):
        log_probs = unembed(model, row.unsqueeze(0))[0].log_softmax(-1)
        ce.append(F.nll_loss(log_probs, following, reduction="sum"))
        kl.append(F.kl_div(log_probs, expected, log_target=True, reduction="sum"))
    return Effect(torch.stack(ce).double(), torch.stack(kl).double())
