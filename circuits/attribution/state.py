"""Clean and reference values of every node of a prompt set.

At each site with a dictionary the tensor is written as `x = f @ W_dec + b_dec + error`: the
features `f` and the error are the nodes, and the error is whatever the features do not write, so
the parts always add up to the tensor itself. The token embeddings are nodes too, one a position.

Norm outliers (mostly the first token, at which Qwen parks attention, with hundreds of times the
usual norm) do not move to zero or to a mean over other tokens: no dictionary was trained on them,
and without them the model is another one. They stay as they are and count in no such mean. Moved
to a patch, or to the mean of a position that holds outliers only, they are nodes like others.

Axes: `batch` prompts, `pos` columns (prompts padded on the left), `features` a dictionary's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import BlockArguments, LastLogits, run_recording
from hooked_qwen.hooks import capture
from hooked_qwen.precision import our_precision
from hooked_qwen.sites import Site
from hooked_qwen.stream import OUTLIER_FACTOR, is_outlier_in_prompt
from hooked_qwen.tokens import Batch
from saes.dictionary import SparseDictionary
from saes.suite import Suite

Reference = Literal["patch", "zero", "mean"]
EMBED = Site("embed")
SMALLEST_MOVE, LARGEST_SLOPE = 1e-3, 3.0


@dataclass(frozen=True)
class SiteState:
    """Features and error of one site, on the clean prompts and at the reference."""

    f: Float[Tensor, "batch pos features"]
    error: Float[Tensor, "batch pos d_model"]
    f_reference: Float[Tensor, "batch pos features"]
    error_reference: Float[Tensor, "batch pos d_model"]
    slope: Float[Tensor, "batch pos features"]
    "how far each feature answers a change of its pre-activation"
    outlier: Bool[Tensor, "batch pos"]
    "tokens over ten times the median norm of the prompt's, at target or source, on the clean run"

    @property
    def f_change(self) -> Float[Tensor, "batch pos features"]:
        return self.f_reference - self.f

    def changes(self, at: slice, features: Sequence[int]) -> Float[Tensor, "batch pos chosen"]:
        """`f_change` of some positions and features, the others' not computed."""
        return self.f_reference[:, at, features] - self.f[:, at, features]

    @property
    def error_change(self) -> Float[Tensor, "batch pos d_model"]:
        return self.error_reference - self.error

    def tensor_change(self, dictionary: SparseDictionary) -> Float[Tensor, "batch pos d_model"]:
        """How the site's tensor changes when all its nodes move to the reference."""
        return dictionary.write(self.f_change) + self.error_change


@dataclass(frozen=True)
class BatchState:
    """Everything the estimators and the oracle need to know of one batch of prompts."""

    rows: Int[Tensor, " batch"]
    "index of each prompt in the prompt set"
    clean: Batch
    values: dict[Site, Float[Tensor, "batch pos d_model"]]
    "the clean run's tensors: every target, source and `resid_pre`, and the embeddings"
    sites: dict[Site, SiteState]
    embed_change: Float[Tensor, "batch pos d_model"]
    logits: LastLogits
    patch_logits: LastLogits | None
    arguments: BlockArguments
    under: Callable[[Int[Tensor, " rows"]], AbstractContextManager[None]] = lambda index: (
        nullcontext()
    )
    "puts the edit that the prompts run under into the model, where row i is prompt `index[i]`"

    @property
    def every_row(self) -> Int[Tensor, " batch"]:
        """The index of a run of all prompts, each once."""
        return torch.arange(len(self.rows))


@dataclass(frozen=True)
class Recorded:
    """One run of a batch of prompts: its tensors, and what each site's nodes are in them."""

    values: dict[Site, Float[Tensor, "batch pos d_model"]]
    read: dict[Site, Float[Tensor, "batch pos d_source"]]
    "what each target's dictionary read"
    encoded: dict[Site, Float[Tensor, "batch pos features"]]
    "the features of that"
    features: dict[Site, Float[Tensor, "batch pos features"]]
    "those that stand at the site: the same, but for what an edit sets"
    outlier: dict[Site, Bool[Tensor, "batch pos"]]
    logits: LastLogits
    arguments: BlockArguments

    def parts(
        self, site: Site, dictionary: SparseDictionary
    ) -> tuple[Float[Tensor, "batch pos features"], Float[Tensor, "batch pos d_target"]]:
        """Features and error that add up, with the bias, to the site's tensor."""
        f = self.features[site]
        return f, self.values[site] - dictionary.decode(f)


@dataclass(frozen=True)
class Means:
    """Mean features and errors over a set of runs, for ablation and as a reference.

    By position where positions are kept, else over all tokens (`pos` has length 1). Norm outliers
    count only where there is nothing else.
    """

    f: dict[Site, Float[Tensor, "pos features"]]
    error: dict[Site, Float[Tensor, "pos d_model"]]
    of_outliers: dict[Site, Bool[Tensor, " pos"]]
    "where there is nothing else"


def batches(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    *,
    reference: Reference,
    batch_size: int,
    means: Means | None = None,
) -> Iterator[BatchState]:
    """Run the prompt set in batches and decompose every site.

    `reference` is what nodes are moved to: their value on the patch prompt, zero, or `means`.
    """
    for rows in torch.arange(len(prompts)).split(batch_size):
        clean = prompts.clean.rows(rows)
        run = record(model, suite, clean)
        patched = None if prompts.patch is None else record(model, suite, prompts.patch.rows(rows))
        yield batch_state(suite, rows, clean, run, patched, reference, means)


def slopes(
    dictionary: SparseDictionary,
    f: Float[Tensor, "batch pos features"],
    f_reference: Float[Tensor, "batch pos features"],
    source: Float[Tensor, "batch pos d_source"],
    source_reference: Float[Tensor, "batch pos d_source"],
) -> Float[Tensor, "batch pos features"]:
    """Change of each feature over the change of its pre-activation, from clean to reference.

        slope = (f' - f) / (p' - p)      between 0 and 3; where p hardly moves, 1 if f is on

    The gradient at the clean run is 1 for a feature that is on and 0 for one that is off, whatever
    happens on the way: features that switch on or off, which are most of those that matter in a
    pair of prompts, would answer too much or not at all, and the error would take the rest.
    """
    active = (f != 0).to(f)
    moved = dictionary.pre_activations(source_reference) - dictionary.pre_activations(source)
    ratio = (f_reference - f) / torch.where(moved == 0, 1.0, moved)
    small = moved.abs() <= SMALLEST_MOVE * moved.abs().amax(-1, keepdim=True)
    return torch.where(small, active, ratio.clamp(0.0, LARGEST_SLOPE))


def site_values(
    model: TransformerBridge, suite: Suite, batch: Batch
) -> tuple[dict[Site, Tensor], LastLogits, BlockArguments]:
    """One recorded run: the tensors at every site that states and resuming need."""
    starts = {Site("resid_pre", site.layer) for site in suite}
    last = Site("resid_post", len(model.blocks) - 1)
    posts = {Site("resid_post", site.layer) for site in suite}
    wanted = {EMBED, last, *starts, *posts, *suite, *suite.sources}
    with torch.no_grad(), capture(model, wanted) as values:
        logits, arguments = run_recording(model, batch, keep_past=True)
    return values, logits, arguments


def record(model: TransformerBridge, suite: Suite, batch: Batch) -> Recorded:
    """Run `batch` and decompose every site."""
    values, logits, arguments = site_values(model, suite, batch)
    read = {site: values[dictionary.source] for site, dictionary in suite.items()}
    encoded = {site: dictionary.encode(read[site]) for site, dictionary in suite.items()}
    outlier = {
        site: is_outlier_in_prompt(read[site], batch.mask)
        | is_outlier_in_prompt(values[site], batch.mask)
        for site in suite
    }
    return Recorded(values, read, encoded, encoded, outlier, logits, arguments)


def mean_over(
    model: TransformerBridge,
    suite: Suite,
    batch: Batch,
    *,
    by_position: bool,
    batch_size: int,
) -> Means:
    """Mean features and errors over the prompts of `batch`, padding left out."""
    pieces = (batch.rows(rows) for rows in torch.arange(len(batch)).split(batch_size))
    runs = ((part, record(model, suite, part)) for part in pieces)
    return mean_of(suite, runs, by_position=by_position, dtype=our_precision(model))


def mean_of(
    suite: Suite,
    runs: Iterable[tuple[Batch, Recorded]],
    *,
    by_position: bool,
    dtype: torch.dtype,
) -> Means:
    """Mean features and errors over runs of prompts, padding left out."""
    totals: dict[Site, list[Tensor]] = {}
    for part, run in runs:
        for site, dictionary in suite.items():
            outlier = run.outlier[site]
            kinds = torch.stack([part.mask & ~outlier, outlier]).double()
            over = "kind batch pos, batch pos d -> kind pos d"
            whole = (*run.parts(site, dictionary), part.mask.unsqueeze(-1))
            sums = [einsum(kinds, x.double(), over) for x in whole]
            if not by_position:
                sums = [x.sum(1, keepdim=True) for x in sums]
            known = totals.get(site)
            totals[site] = (
                sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]
            )
    means = Means({}, {}, {})
    for site, (f, error, count) in totals.items():
        plain = count[0] > 0
        chosen = [torch.where(plain, inlier, outlier) for inlier, outlier in (f, error, count)]
        means.f[site], means.error[site] = ((x / chosen[2]).to(dtype) for x in chosen[:2])
        means.of_outliers[site] = ~plain.squeeze(-1)
    return means


def batch_state(
    suite: Suite,
    rows: Int[Tensor, " batch"],
    clean: Batch,
    run: Recorded,
    patched: Recorded | None,
    reference: Reference,
    means: Means | None,
) -> BatchState:
    """Where the nodes of prompts that were `run` stand, and where they are moved to.

    Raises `ValueError` when they are to be moved to a patch that they do not have.
    """
    if reference == "patch" and patched is None:
        raise ValueError(
            "the prompts have no patch: give each one a patch, or use the reference zero or mean"
        )
    states = {}
    for site, dictionary in suite.items():
        f, error = run.parts(site, dictionary)
        moved = _reference(site, dictionary, reference, patched, means, f, error)
        outlier, keep = run.outlier[site], clean.mask.unsqueeze(-1)
        if reference != "patch":
            stays = outlier if means is None else outlier & ~means.of_outliers[site]
            keep = keep & ~stays.unsqueeze(-1)
        f_moved, error_moved = torch.where(keep, moved[0], f), torch.where(keep, moved[1], error)
        slope = (f != 0).to(f)
        if reference == "patch" and patched is not None:
            encoded = run.encoded[site], torch.where(keep, patched.encoded[site], run.encoded[site])
            slope = slopes(dictionary, *encoded, run.read[site], patched.read[site])
        states[site] = SiteState(f, error, f_moved, error_moved, slope, outlier)
    embed_change = torch.zeros_like(run.values[EMBED])
    if reference == "patch" and patched is not None:
        embed_change = patched.values[EMBED] - run.values[EMBED]
    patch_logits = None if patched is None else patched.logits
    return BatchState(
        rows, clean, run.values, states, embed_change, run.logits, patch_logits, run.arguments
    )


def norm_limits(
    model: TransformerBridge, suite: Suite, batch: Batch, *, batch_size: int
) -> dict[Site, float]:
    """Ten times the median norm of all tokens of `batch`, at every source and target.

    It tells norm outliers where prompts are not known one by one, padding among them.
    """
    norms: dict[Site, list[Tensor]] = {site: [] for site in {*suite, *suite.sources}}
    for rows in torch.arange(len(batch)).split(batch_size):
        part = batch.rows(rows)
        values, _, _ = site_values(model, suite, part)
        for site, found in norms.items():
            found.append(values[site].float().norm(dim=-1)[part.mask])
    return {
        site: OUTLIER_FACTOR * float(torch.cat(found).median()) for site, found in norms.items()
    }


def _reference(
    site: Site,
    dictionary: SparseDictionary,
    reference: Reference,
    patched: Recorded | None,
    means: Means | None,
    f: Tensor,
    error: Tensor,
) -> tuple[Tensor, Tensor]:
    if reference == "patch":
        assert patched is not None, "asked for above"
        return patched.parts(site, dictionary)
    if reference == "zero":
        return torch.zeros_like(f), torch.zeros_like(error)
    assert means is not None, "the mean reference needs the means"
    return means.f[site].expand_as(f), means.error[site].expand_as(error)
