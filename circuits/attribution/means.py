"""Mean features and errors over a set of runs, for ablation and as a reference.

Axes: `pos` positions, or one for all of them; `slots` as in `saes.features`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.decomposed_run import DecomposedRun, decompose, run_plain
from hooked_qwen.placement import device_of
from hooked_qwen.precision import our_precision
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features, FeatureSums
from saes.suite import Suite


@dataclass(frozen=True)
class Means:
    """Mean features and errors over a set of runs, for ablation and as a reference.

    By position where positions are kept, else over all tokens (`pos` has length 1). Norm outliers
    count only where there is nothing else.
    """

    f: dict[str, Features]
    "`[pos, slots]`, by dictionary"
    error: dict[Site, Float[Tensor, "pos d_model"]]
    of_outliers: dict[str, Bool[Tensor, " pos"]]
    "where there is nothing else, by dictionary and by site written"


def mean_over(
    model: TransformerBridge,
    suite: Suite,
    batch: Batch,
    *,
    by_position: bool,
    batch_size: int,
) -> Means:
    """Mean features and errors over the prompts of `batch`, padding left out."""
    device, parts = device_of(model), torch.arange(len(batch)).split(batch_size)

    def run(rows: Int[Tensor, " batch"]) -> tuple[Batch, DecomposedRun]:
        part = batch.rows(rows).to(device)
        return part, decompose(suite, run_plain(model, suite, part)).clean

    runs = [partial(run, rows) for rows in parts]
    return mean_of(suite, runs, by_position=by_position, dtype=our_precision(model))


def mean_of(
    suite: Suite,
    runs: Sequence[Callable[[], tuple[Batch, DecomposedRun]]],
    *,
    by_position: bool,
    dtype: torch.dtype,
) -> Means:
    """Mean features and errors over runs of prompts, padding left out.

    Each run is made when the one before it has been let go.
    """
    sums = {name: FeatureSums() for name in suite}
    counts: dict[str, Tensor] = {}
    errors: dict[Site, Tensor] = {}

    def add(batch: Batch, found: DecomposedRun) -> None:
        mask, outlier = batch.mask, found.run.outlier
        columns = torch.arange(mask.shape[1], device=mask.device)
        position = (columns if by_position else columns * 0).expand_as(mask)
        kinds = {k: torch.stack([mask & ~o, mask & o]) for k, o in outlier.items()}
        for name in suite:
            f = found.features[name]
            # Outliers stand behind all positions of the others.
            at = position + outlier[name] * (mask.shape[1] if by_position else 1)
            sums[name].add(f, at, (f.value != 0) & mask.unsqueeze(-1))
        for key, tokens in kinds.items():
            count = tokens.double().sum(1)
            _add(counts, key, count if by_position else count.sum(-1, keepdim=True))
        for site, error in found.errors.items():
            over = "kind batch pos, batch pos d -> kind pos d"
            total = einsum(kinds[str(site)].double(), error.double(), over)
            _add(errors, site, total if by_position else total.sum(1, keepdim=True))

    for run in runs:
        add(*run())
    return _means(sums, errors, counts, dtype)


def _add(totals: dict[Any, Tensor], key: Any, found: Tensor) -> None:
    totals[key] = totals[key] + found if key in totals else found


def _means(
    sums: Mapping[str, FeatureSums],
    errors: Mapping[Site, Float[Tensor, "kind pos d_model"]],
    counts: Mapping[str, Float[Tensor, "kind pos"]],
    dtype: torch.dtype,
) -> Means:
    """Of each position the mean of its plain tokens; of its outliers, where it has no others."""
    plain = {key: count[0] > 0 for key, count in counts.items()}
    # Columns of padding alone have no mean, and nothing reads what is put there: zero.
    of_which = {k: torch.where(plain[k], *n).clamp_min(1) for k, n in counts.items()}
    f = {}
    for name, total in sums.items():
        both = total.mean(counts[name].flatten(), dtype)
        places = torch.arange(len(plain[name]), device=plain[name].device)
        f[name] = both[places + ~plain[name] * len(places)]
    error = {}
    for site, total in errors.items():
        key = str(site)
        chosen = torch.where(plain[key].unsqueeze(-1), total[0], total[1])
        error[site] = (chosen / of_which[key].unsqueeze(-1)).to(dtype)
    return Means(f, error, {key: ~value for key, value in plain.items()})
