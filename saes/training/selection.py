"""Which features of a batch are on: sparse forms of TopK and BatchTopK, exact and fast.

Axes: `tokens` activations in a batch, `pairs` the (token, feature) pairs that are on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

FOLD = 4
"Columns whose maximum stands for them in one level of the search; 4 was fastest of 2, 4 and 8."


@dataclass(frozen=True)
class Pairs:
    """The features that are on, token after token; some of the values may be zero."""

    features: Int[Tensor, " pairs"]
    values: Float[Tensor, " pairs"]
    counts: Int[Tensor, " tokens"]
    "pairs of each token"

    @classmethod
    def concatenate(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """The pairs of several batches, one after the other."""
        return cls(
            torch.cat([part.features for part in parts]),
            torch.cat([part.values for part in parts]),
            torch.cat([part.counts for part in parts]),
        )

    @property
    def tokens(self) -> Int[Tensor, " pairs"]:
        """The token of each pair."""
        rows = torch.arange(len(self.counts), device=self.counts.device)
        return rows.repeat_interleave(self.counts, output_size=len(self.features))


def largest(
    pre: Num[Tensor, "tokens features"], k: int
) -> tuple[Num[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
    """`pre.topk(k)` in no order, faster for wide rows.

    The k largest of a row lie in the k groups with the largest maxima, so a cascade of maxima
    over groups leaves few candidates for the costly search.
    """
    levels = [pre]
    while levels[-1].shape[1] % FOLD == 0 and levels[-1].shape[1] // FOLD >= FOLD * k:
        level = levels[-1]
        levels.append(level.view(len(level), FOLD, -1).amax(1))
    values, index = levels[-1].topk(k, dim=-1, sorted=False)
    for level in reversed(levels[:-1]):
        step = level.shape[1] // FOLD
        members = torch.arange(FOLD, device=pre.device) * step
        candidates = (index[:, None, :] + members[None, :, None]).flatten(1)
        values, kept = level.gather(1, candidates).topk(k, dim=-1, sorted=False)
        index = candidates.gather(1, kept)
    return values, index


def largest_positive(
    pre: Float[Tensor, "tokens features"], k: int
) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
    """`largest` of bfloat16; where fewer than k are positive, any negative ones with them.

    Positive numbers are in the order of their bits, negative ones in reverse, and the CPU compares
    whole numbers in a quarter of the time.
    """
    bits, index = largest(pre.view(torch.int16), k)
    return bits.view(torch.bfloat16), index


TopKSearch = Callable[
    [Float[Tensor, "tokens features"], int],
    tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]],
]
"A way to find the k largest of each token, in any order."


def select_topk(
    pre: Float[Tensor, "tokens features"], k: int, search: TopKSearch = largest
) -> Pairs:
    """The `k` largest pre-activations of each token, where positive.

    Source: Gao et al. 2024, arXiv:2406.04093.
    """
    values, features = search(pre, k)
    counts = torch.full((len(pre),), k, device=pre.device)
    return Pairs(features.flatten(), values.relu().flatten(), counts)


def select_batch_topk(
    pre: Float[Tensor, "tokens features"], k: int, *, guess: Float[Tensor, ""] | None = None
) -> Pairs:
    """The `k * tokens` largest pre-activations of the whole batch, where positive.

    `guess` is a value that about the wanted number of them exceed, such as the threshold of the
    batch before: it saves time on the CPU when right and changes nothing when wrong.

    Source: Bussmann et al. 2024, arXiv:2412.06410.
    """
    wanted = min(k * len(pre), pre.numel())
    flat = pre.flatten()
    if pre.is_cpu:
        chosen = _largest_by_guess(flat, wanted, 0.0 if guess is None else float(guess))
    else:
        chosen = _largest_at_once(flat, wanted)
    tokens = chosen // pre.shape[1]
    counts = starts_of(tokens, len(pre)).diff()
    return Pairs(chosen % pre.shape[1], flat[chosen].relu(), counts)


def _largest_by_guess(flat: Float[Tensor, " all"], wanted: int, guess: float) -> Int[Tensor, " n"]:
    """Where the positive ones of the `wanted` largest lie, rising."""
    candidates = (flat > guess).nonzero().squeeze(1) if guess > 0 else None
    if candidates is None or not wanted <= len(candidates) <= 4 * wanted:
        candidates = (flat > 0).nonzero().squeeze(1)
    if len(candidates) <= wanted:
        return candidates
    kept = flat[candidates].topk(wanted, sorted=False).indices
    return candidates[kept].sort().values


def _largest_at_once(flat: Float[Tensor, " all"], wanted: int) -> Int[Tensor, " wanted"]:
    """Where the `wanted` largest lie, rising: how many are positive would have to be waited for."""
    return flat.topk(wanted, sorted=False).indices.sort().values


def prefix_of(features: Int[Tensor, " pairs"], prefixes: Sequence[int]) -> Int[Tensor, " pairs"]:
    """For each pair, the first of the nested `prefixes` that holds its feature."""
    first = torch.zeros_like(features)
    # A tensor of the prefixes would have to be copied to the device each time.
    for end in prefixes[:-1]:
        first += features >= end
    return first


def starts_of(rising: Int[Tensor, " pairs"], rows: int) -> Int[Tensor, " ends"]:
    """Where each row's pairs start in the `rising` rows of all pairs, and where the last ends.

    Counting them with `bincount` makes the host wait for a device.
    """
    return torch.ops.aten._convert_indices_from_coo_to_csr(rising, rows)
