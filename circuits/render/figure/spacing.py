"""Things in a row, kept apart: each as near to where it is wanted as the others let it."""

from collections.abc import Sequence
from itertools import accumulate


def spaced(
    wanted: Sequence[float], distances: Sequence[float], low: float, high: float
) -> list[float]:
    """Places in this order, nearest to `wanted` by least squares, that keep their distances.

    `distances` are those to the next one. Raises `ValueError` where `low` to `high` is too short.
    """
    offsets = list(accumulate(distances, initial=0.0))[: len(wanted)]
    if wanted and low + offsets[-1] > high + 1e-9:
        raise ValueError(f"no room from {low} to {high} for {offsets[-1]}")
    # Pool adjacent violators: with the distances taken off, the places may only grow.
    blocks: list[tuple[float, int]] = []
    for value in (want - offset for want, offset in zip(wanted, offsets, strict=True)):
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks.pop(-2), blocks.pop()
            blocks.append(((a * n + b * m) / (n + m), n + m))
    levels = [mean for mean, count in blocks for _ in range(count)]
    limit = high - (offsets[-1] if offsets else 0.0)
    return [
        max(low, min(level, limit)) + offset for level, offset in zip(levels, offsets, strict=True)
    ]
