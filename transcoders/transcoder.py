"""MLP transcoders: sparse, interpretable stand-ins for an MLP layer.

A transcoder reads what the MLP reads and writes what the MLP writes, so its features say what
the layer *does* where an SAE's features say what its output *is*.

Source: Dunefsky et al. 2024, arXiv:2406.11944.
"""

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec


def transcoder(layer: int, *, k: int) -> DictionarySpec:
    """A TopK transcoder of the MLP in `layer`, from `mlp_in` to `mlp_out`."""
    return DictionarySpec(source=Site("mlp_in", layer), target=Site("mlp_out", layer), k=k)
