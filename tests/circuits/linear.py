"""A model in which effects add up: its blocks add nothing, its features are always on.

The metric reads the stream in one direction, at the one position where clean and patch differ.
"""

import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.metrics.readout import Readout
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import Suite
from tests.toys import toy_hf, toy_prompts

FEATURES = 12
CHANGED = 1
"The position at which the prompts differ."
SITE = Site("resid_post", 0)


def linear_analysis() -> Analysis:
    """Of one dictionary on the first stream: its features and its error are all that changes."""
    hf = toy_hf()
    for layer in hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    width = hf.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(FEATURES, width, generator=generator, dtype=torch.float64) / 4,
        "b_enc": torch.full((FEATURES,), 100.0, dtype=torch.float64),
        "W_dec": torch.randn(FEATURES, width, generator=generator, dtype=torch.float64) / 4,
        "b_dec": torch.zeros(width, dtype=torch.float64),
    }
    spec = DictionarySpec(source=SITE, target=SITE, architecture="relu")
    direction = torch.linspace(-1, 1, width, dtype=torch.float64)
    config = DiscoverConfig(
        metric=Readout(site=Site("resid_post", 2), direction=direction, position=CHANGED),
        estimator="patching",
        batch_size=3,
    )
    suite = Suite({str(SITE): SparseDictionary(spec, weights)}, {})
    return Analysis.of(hook(hf, name="linear"), suite, toy_prompts(n=4), config)
