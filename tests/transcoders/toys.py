"""Toy models of every family whose layers can be frozen, and transcoders for them."""

from collections.abc import Sequence
from functools import cache

import torch
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from tests.hooked_qwen.test_load import toy_hybrid, toy_hybrid_moe, toy_moe
from tests.toys import SIZES, VOCABULARY, random_dictionary, toy_hf
from transcoders.replacement import ReplacementModel, replace_mlps
from transcoders.transcoder import transcoder

MAKERS = {
    "qwen2": lambda: toy_hf("qwen2"),
    "qwen3": lambda: toy_hf("qwen3"),
    "qwen3-moe": toy_moe,
    "qwen3.5": toy_hybrid,
    "qwen3.5-moe": toy_hybrid_moe,
}
FAMILIES = tuple(MAKERS)
TOKENS = torch.randint(1, VOCABULARY, (7,), generator=torch.Generator().manual_seed(3))


@cache
def toy_of(family: str) -> TransformerBridge:
    """In float64, and with gains and biases that are not all one or zero; one for all tests."""
    own = MAKERS[family]().double()
    if "moe" in family:
        # The fused experts know no float64.
        own.set_experts_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    for parameter in own.parameters():
        if parameter.dim() == 1:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += 0.3 * noise
    return hook(own, name=f"toy-{family}")


def suite_of(layers: Sequence[int], *, skips: Sequence[int] = ()) -> dict[str, SparseDictionary]:
    """Transcoders of some layers, of which some have a skip connection."""
    specs = [transcoder(layer, k=4, skip=layer in skips) for layer in layers]
    return {spec.node_name: random_dictionary(spec, seed=spec.source.layer) for spec in specs}


def cross_layer_suite() -> dict[str, SparseDictionary]:
    """A cross-layer transcoder from layer 0 to layers 0 to 2, and a plain one of layer 1."""
    d, width = SIZES["hidden_size"], 20
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    spec = DictionarySpec(
        source=Site("mlp_in", 0),
        target=Site("mlp_out", 0),
        also_writes=(Site("mlp_out", 1), Site("mlp_out", 2)),
        k=4,
        called="clt.0",
    )
    weights = {
        "W_enc": draw(width, d),
        "b_enc": draw(width),
        "W_dec": draw(width, 3 * d) / d**0.5,
        "b_dec": draw(3 * d) / d**0.5,
    }
    return {"clt.0": SparseDictionary(spec, weights), **suite_of([1])}


def replaced(family: str, suite: dict[str, SparseDictionary]) -> ReplacementModel:
    return replace_mlps(toy_of(family), suite, TOKENS)
