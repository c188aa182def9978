"""SAELens's layout: earlier versions of it."""

import json

import torch

from tests.saes import published
from tests.saes.formats.test_published import activations, change_weights, one, same
from tests.saes.published import D, K, M


def test_saelens_before_version_6(tmp_path):
    folder, oracle = published.write("saelens topk", tmp_path)
    old = {
        "hook_point": "blocks.1.hook_mlp_out",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": False,
        "d_in": D,
        "d_sae": M,
    }
    (folder / "one/cfg.json").write_text(json.dumps(old))
    change_weights(folder / "one/sae_weights.safetensors", scaling_factor=torch.ones(M))
    x = activations()
    same(one(folder).encode(x).dense(), oracle(x)[0])
