"""MLP transcoders: sparse, interpretable stand-ins for an MLP layer.

A transcoder reads what the MLP reads and writes what the MLP writes, so its features say what
the layer *does* where an SAE's features say what its output *is*.

Source: Dunefsky et al. 2024, arXiv:2406.11944; with a linear skip connection Paulo et al. 2025,
arXiv:2501.18823.
"""

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec


def transcoder(
    layer: int, *, k: int | None, architecture: str = "topk", skip: bool = False
) -> DictionarySpec:
    """A transcoder of the MLP in `layer`, from `mlp_in` to `mlp_out`.

    With `skip` a linear map of what the MLP reads carries what is linear about it, and the
    features are left with the rest.
    """
    return DictionarySpec(
        source=Site("mlp_in", layer),
        target=Site("mlp_out", layer),
        architecture=architecture,
        k=k,
        skip=skip,
    )
