"""Which dictionaries of a suite are transcoders, and the skip connections that these have."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.on_demand import InTurn, each
from saes.suite import Suite
from transcoders.sources import Pinned


def transcoders_in(suite: Suite) -> list[str]:
    """As `transcoders_among`, nothing where there are none."""
    return [n for n in suite if _is_transcoder(suite.reads_of(n), suite.writes_of(n))]


def transcoders_among(suite: Suite) -> list[str]:
    """Those that read the MLP of one layer and write MLPs from there on; in their order.

    Raises `ValueError` where there are none.
    """
    found = transcoders_in(suite)
    if not found:
        there = ", ".join(suite) or "none"
        raise ValueError(
            "a replacement model needs transcoders, which read mlp_in.L and write mlp_out.L or "
            f"later ones; the dictionaries that are there are {there}: train some with "
            "`circuits train transcoders`, or choose them with --mlp transcoder"
        )
    return found


def _is_transcoder(reads: Sequence[Site], writes: Sequence[Site]) -> bool:
    kinds = {site.kind for site in writes}
    one = len(reads) == 1 and reads[0].kind == "mlp_in"
    return one and kinds == {"mlp_out"} and min(writes).layer >= reads[0].layer


def skips_of(dictionaries: InTurn) -> dict[int, Tensor]:
    """The skip connections by layer, summed where several dictionaries have one."""
    skips: dict[int, Tensor] = {}
    for found in each(dictionaries, _skip):
        if found is not None:
            layer, W_skip = found
            skips[layer] = skips.get(layer, 0.0) + W_skip
    return skips


def _skip(dictionary: SparseDictionary) -> tuple[int, Tensor] | None:
    layer = dictionary.source.layer
    if dictionary.W_skip is None:
        return None
    if dictionary.writes != (Site("mlp_out", layer),):
        raise ValueError(
            f"{dictionary.name} has a skip connection from {dictionary.source} to "
            f"{', '.join(map(str, dictionary.writes))}: a replacement model takes those of one "
            "layer's MLP"
        )
    return layer, dictionary.W_skip


def check_skips(skips: Mapping[int, Tensor], pinned: Pinned) -> None:
    """Raise `ValueError` for a skip connection beside an error that is pinned."""
    for site, held in pinned.errors.items():
        if site.layer in skips and held.any():
            raise ValueError(
                f"the error of {site} is ablated, and what the skip connection there adds is part "
                "of it: the replacement graph that is left has no place for half a connection. "
                "Ablate features, or use transcoders without a skip connection"
            )
