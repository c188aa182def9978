"""What feature cards are made of: a toy, dictionaries that share sites, a text."""

import torch

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.examples.store import StoreConfig
from tests.toys import (
    random_dictionary,
    toy_hf,
)

CONFIG = StoreConfig(tokens=8 * 30, block_length=8, blocks_per_pass=7, top=5, sampled=2)
TEXT = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? " * 9
NAMES = ("mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_out.1", "attn_out.2", "mlp_out.2")


def dictionary(text, seed):
    source, _, target = text.partition("-")
    spec = DictionarySpec(source=Site.parse(source), target=Site.parse(target or source), k=4)
    return random_dictionary(spec, width=12, seed=seed, dtype=torch.float32)


def toy_with_gain():
    model = toy_hf("qwen3", torch.float32)
    # A gain of both signs: a card that leaves it out ranks other tokens.
    model.model.norm.weight.data = torch.randn(24, generator=torch.Generator().manual_seed(5))
    return model
