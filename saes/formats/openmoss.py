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

from torch import Tensor

from hooked_qwen.sites import Site
from saes.formats.layout import layout_of_folders
from saes.formats.reading import Config
from saes.formats.terms import Terms

THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."
READ = {
    "sae_type": {"sae": ""},
    "act_fn": {
        "relu": "",
        "jumprelu": "",
        "topk": "",
        "batchtopk": "it selects over a batch, which one token does not have",
    },
    "norm_activation": {
        "dataset-wise": "",
        "inference": "",
        "token-wise": "it scales each token by its own norm",
        "batch-wise": "it scales each batch by its own norm",
    },
    "use_glu_encoder": {False: "", True: "a product of two linear maps"},
    "apply_decoder_bias_to_pre_encoder": {False: "", True: "it centres the input"},
}


def _sites(config: Config, _: str) -> tuple[Site, Site]:
    config.check(**READ)
    source = config.site("hook_point_in")
    return source, config.site("hook_point_out") if "hook_point_out" in config.record else source


def _terms(config: Config, tensors: dict[str, Tensor], path: Path) -> Terms:
    config.check(**READ)
    activation = config.field("act_fn", str, "relu")
    norms = {name: tensors.pop(name) for name in list(tensors) if name.startswith(NORM)}
    axes = {"W_E": "dm", "b_E": "m", "W_D": "md"}
    axes |= {"b_D": "d"} if config.field("use_decoder_bias", bool, True) else {}
    axes |= {THRESHOLD: "m"} if activation == "jumprelu" else {}
    scales = 1.0, 1.0
    if config.record.get("norm_activation", "dataset-wise") == "dataset-wise":
        hook, width = config.record["hook_point_in"], len(tensors.get("W_E", ()))
        hooks = hook, config.record.get("hook_point_out", hook)
        scales = tuple(_scale(path, norms, hook, width) for hook in hooks)
    by_norm = config.field("sparsity_include_decoder_norm", bool, True)
    return Terms(
        axes=axes,
        ranked_by="norm" if by_norm else "activation",
        architecture=activation,
        k=config.field("top_k", int) if activation == "topk" else None,
        scale=scales[0],
        target_scale=scales[1],
    )


def _scale(path: Path, norms: Mapping[str, Tensor], hook: str, width: int) -> float:
    norm = norms.get(NORM + hook)
    if norm is None or norm.numel() != 1 or not 0 < float(norm) < math.inf:
        raise ValueError(f"{path} lacks a positive number {NORM}{hook}, which scales its input")
    return math.sqrt(width) / float(norm)


LAYOUT = layout_of_folders(
    "openmoss",
    weights="sae_weights.safetensors",
    config="config.json",
    sites=_sites,
    terms=_terms,
)
