"""How many threads torch computes with: one where matrices are small, else as many as it chose.

Sharing a small matrix product among threads costs more than the product: models like the bundled
one run two to six times faster on one thread. Sums are added up in another order on another number
of threads, so what must be the same to the last bit needs the same number.
"""

import os

import torch
from transformer_lens.model_bridge import TransformerBridge

SHARED_FROM = 1 << 20
"Entries of the largest weight matrix from which its products are shared among threads."
_chosen: dict[str, int] = {}
"`asked`: what the user said; `torch`: what torch had chosen."


def set_threads(n: int) -> None:
    """Compute with `n` threads from here on, whatever the model; raises `ValueError` below 1."""
    if n < 1:
        raise ValueError(f"{n} threads were asked for: expected 1 or more")
    _chosen["asked"] = n
    torch.set_num_threads(n)


def fit_threads(model: TransformerBridge, *, width: int = 0) -> int:
    """Set torch's threads by the size of the work, and return their number.

    One thread where neither the model's MLP nor dictionaries of `width` features have matrices of
    a million entries. Nothing changes after `set_threads`, nor where the environment says
    `OMP_NUM_THREADS`.
    """
    return fit_threads_to(model.cfg.d_model, max(model.cfg.d_mlp or 0, width))


def fit_threads_to(d_model: int, width: int) -> int:
    """As `fit_threads`, where the largest matrix is `d_model` x `width`."""
    own = _chosen.setdefault("torch", torch.get_num_threads())
    if "asked" not in _chosen and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(own if d_model * width >= SHARED_FROM else 1)
    return torch.get_num_threads()
