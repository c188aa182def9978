"""OpenMOSS Language-Model-SAEs: `config.json` and `sae_weights.safetensors`.

    W_E [d, m], W_D [m, d], b_E [m], b_D [d] (with `use_decoder_bias`),
    activation_function.log_jumprelu_threshold [m], dataset_average_activation_norm.HOOK (numbers)

    x' = x * a, y = y' / b          a, b = sqrt(d) / the norm of the hooks in and out, or 1
    p = x' @ W_E + b_E;   g = p * ||W_D|| with `sparsity_include_decoder_norm`, else p
    f = relu(p) where g passes: g > 0 (relu), g > exp(log threshold) (jumprelu), the k largest
    y' = f @ W_D + b_D

Scales are carried into the weights; features stay in the units they were trained in, except
that TopK by g makes the decoder's rows unit length and the features g. Refused: scaling by each
token's or batch's norm, gated linear encoders, and selection over a batch.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import layout_of_folders
from saes.formats.place import Entry
from saes.formats.reading import (
    choice,
    field,
    read_json,
    read_safetensors,
    site_field,
)
from saes.formats.terms import Terms

WEIGHTS, CONFIG = "sae_weights.safetensors", "config.json"
THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."
ACTIVATIONS = {
    "relu": "",
    "jumprelu": "",
    "topk": "",
    "batchtopk": "it selects over a batch, which one token does not have",
}
NORMALISATION = {
    "dataset-wise": "",
    "inference": "",
    "token-wise": "it scales each token by its own norm",
    "batch-wise": "it scales each batch by its own norm",
}


def _sites(path: Path, _: str) -> tuple[Site, Site]:
    config = _config(path)
    source, target = (site_field(config, path, f"hook_point_{way}") for way in ("in", "out"))
    return source, target


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    choice(config, path, "sae_type", {"sae": ""}, "sae")
    choice(config, path, "act_fn", ACTIVATIONS, "relu")
    choice(config, path, "norm_activation", NORMALISATION, "dataset-wise")
    choice(
        config, path, "use_glu_encoder", {False: "", True: "a product of two linear maps"}, False
    )
    choice(
        config,
        path,
        "apply_decoder_bias_to_pre_encoder",
        {False: "", True: "it centres the input"},
        False,
    )
    return {"hook_point_out": config.get("hook_point_in")} | config


def load(entry: Entry) -> SparseDictionary:
    path, about = entry.fetch()
    config, tensors = _config(about), read_safetensors(path)
    activation = config.get("act_fn", "relu")
    norms = {name: tensors.pop(name) for name in list(tensors) if name.startswith(NORM)}
    axes = {"W_E": "dm", "b_E": "m", "W_D": "md"}
    axes |= {"b_D": "d"} if field(config, about, "use_decoder_bias", bool, True) else {}
    axes |= {THRESHOLD: "m"} if activation == "jumprelu" else {}
    a, b = 1.0, 1.0
    if config.get("norm_activation", "dataset-wise") == "dataset-wise":
        width = len(tensors.get("W_E", ()))
        a = _scale(path, norms, config["hook_point_in"], width)
        b = _scale(path, norms, config["hook_point_out"], width)
    by_norm = field(config, about, "sparsity_include_decoder_norm", bool, True)
    terms = Terms(
        axes=axes,
        ranked_by="norm" if by_norm else "activation",
        architecture=activation,
        k=field(config, about, "top_k", int) if activation == "topk" else None,
        scale=a,
        target_scale=b,
    )
    return terms.read(path, tensors, entry)


def _scale(path: Path, norms: Mapping[str, Tensor], hook: str, width: int) -> float:
    norm = norms.get(NORM + hook)
    if norm is None or norm.numel() != 1 or not 0 < float(norm) < math.inf:
        raise ValueError(f"{path} lacks a positive number {NORM}{hook}, which scales its input")
    return math.sqrt(width) / float(norm)


LAYOUT = layout_of_folders("openmoss", weights=WEIGHTS, config=CONFIG, sites=_sites, load=load)
