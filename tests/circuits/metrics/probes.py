"""What the tests of readouts read: a direction, its mean over tokens, a transcoder's feature."""

import dataclasses

import torch

from circuits.attribution.state import batches
from circuits.metrics.readout import Readout
from hooked_qwen.sites import Site
from tests.circuits.dense import dense
from tests.toys import toy_hf

AT = 4
DIRECTION = torch.randn(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PROBE = Readout(site=Site("resid_post", 1), direction=DIRECTION, bias=0.5, position=AT)
MEAN = dataclasses.replace(PROBE, position="mean")
FEATURE_SITE = "mlp_out.1"
"A transcoder: its features are read at `mlp_in.1`."


def on_most(model, suite, prompts):
    (state,) = batches(model, suite, prompts, reference="patch", batch_size=3)
    f = dense(state, FEATURE_SITE).f[:, AT]
    return int((f > 0).sum(0).argmax())


def site_tensor(tokens, module):
    """What a module of the Hugging Face model puts out."""
    hf, seen = toy_hf(), []
    handle = module(hf).register_forward_hook(lambda m, args, out: seen.append(out))
    with torch.no_grad():
        hf(tokens)
    handle.remove()
    return seen[0]
