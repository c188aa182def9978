"""Which targets are swept together: those of one layer, by token, as many as memory takes."""

from collections.abc import Callable, Iterator

from jaxtyping import Int
from torch import Tensor

EFFICIENT = 64
"Targets in a sweep from which on those of later tokens are left to the next."


def in_sweeps(
    source: Int[Tensor, " some"],
    layer: Int[Tensor, " some"],
    position: Int[Tensor, " some"],
    *,
    below: Callable[[int], int],
    width: int,
    numbers: int,
) -> Iterator[Int[Tensor, " targets"]]:
    """Features in groups, the highest layer that they read first, then by token.

    A sweep's gradient has `width` numbers for each target and token, its weights one for each
    source that is `below` its layer: `numbers` at most, unless one target has more.
    """
    for number in layer.unique().flip(0).tolist():
        here, at = source[layer == number], position[layer == number]
        order = at.sort(stable=True).indices
        here, upto = here[order], (at[order] + 1).tolist()
        sources, first = below(number), 0
        for i in range(1, len(here) + 1):
            if i == len(here) or _full(
                i - first + 1, upto[first], upto[i], width, sources, numbers
            ):
                yield here[first:i]
                first = i


def _full(n: int, first: int, last: int, width: int, below: int, numbers: int) -> bool:
    """Whether `n` targets, of tokens up to `first` and now `last`, are too many for one sweep."""
    too_large = n * max(last * width, below) > numbers
    return too_large or (n > EFFICIENT and last > first * 1.25)
