"""Matryoshka: BatchTopK whose first features must reconstruct alone, for several nested widths.

Source: Bussmann et al. 2025, arXiv:2503.17547.
"""

from dataclasses import replace

from saes.architectures import batch_topk

SHARES = (16, 8, 4, 2)
"The nested dictionaries are the width divided by these, where none are given."


def nested(width: int) -> tuple[int, ...]:
    """The widths of the nested dictionaries, rising, without the whole."""
    return tuple(sorted({width // n for n in SHARES} - {0}))


ARCHITECTURE = replace(batch_topk.ARCHITECTURE, nested=nested)
