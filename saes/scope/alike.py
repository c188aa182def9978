"""Which features a random control is drawn from: those about as often on as the one beside it."""

from jaxtyping import Bool, Num
from torch import Tensor

NEAREST = 20
"Features that a random one is drawn from."


def alike(
    measure: Num[Tensor, " features"],
    to: int,
    free: Bool[Tensor, " features"],
    *,
    nearest: int = NEAREST,
) -> list[int]:
    """The `nearest` of the `free` features whose `measure` is nearest to that of feature `to`.

    The nearest first; fewer where fewer are free.
    """
    pool = free.nonzero().flatten()
    far = (measure[pool] - measure[to]).abs()
    return pool[far.argsort(stable=True)[:nearest]].tolist()


def log_density(density: Num[Tensor, " features"]) -> Num[Tensor, " features"]:
    """The logarithm of the share of tokens at which features are on, finite where that is 0."""
    return density.double().clamp_min(1e-9).log()
