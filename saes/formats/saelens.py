"""SAELens: `cfg.json` and `sae_weights.safetensors`, version 6 and before.

    W_enc [s, m], W_dec [m, t], b_enc [m], b_dec [t]; optional threshold [m], W_skip [t, s];
    gated: b_gate, b_mag and r_mag [m] in place of b_enc

    u = x (- b_dec with `apply_b_dec_to_input`);   p = u @ W_enc + b_enc
    f = relu(p)                 standard, transcoder, skip_transcoder
    f = relu(p) * [p > thr]     jumprelu, jumprelu_transcoder, jumprelu_skip_transcoder
    f = the k largest of p, or of ||W_dec_i|| * p_i with `rescale_acts_by_decoder_norm`, relu
    y = f @ W_dec + b_dec (+ x @ W_skip.T), f_i / ||W_dec_i|| where it was rescaled

Refused: input scalings whose factor is not in the files or depends on the token, and `hook_z`.
Written: an SAE or transcoder with ReLU or thresholds, and a TopK SAE; there is no TopK
transcoder and no TopK that keeps negative features.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import layout_of_folders, save_folder
from saes.formats.names import transformer_lens
from saes.formats.reading import Config
from saes.formats.terms import Terms

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
VERSION = "6.0.0"
"The oldest SAELens that reads what is written here."
AXES = {"W_enc": "sm", "b_enc": "m", "W_dec": "mt", "b_dec": "t"}
GATED = {"W_enc": "sm", "W_dec": "mt", "b_dec": "t", "b_gate": "m", "b_mag": "m", "r_mag": "m"}
EXTRA = {
    "standard": {},
    "topk": {},
    "gated": {},
    "jumprelu": {"threshold": "m"},
    "transcoder": {},
    "skip_transcoder": {"W_skip": "ts"},
    "jumprelu_transcoder": {"threshold": "m"},
    "jumprelu_skip_transcoder": {"threshold": "m", "W_skip": "ts"},
}
READ = {
    "architecture": dict.fromkeys(EXTRA, ""),
    "normalize_activations": {
        None: "",
        False: "",
        "none": "",
        True: "its scaling factor is not in the files",
        "expected_average_only_in": "its scaling factor is not in the files",
        "layer_norm": "it scales each token by its own norm",
        "constant_norm_rescale": "it scales each token by its own norm",
        "covariance_whitening": "its whitening is not in the files",
    },
    "reshape_activations": {"none": "", "hook_z": "it reads heads before they are mixed"},
    "finetuning_scaling_factor": {False: "", True: "it rescales the features"},
}


def _sites(config: Config, _: str) -> tuple[Site, Site]:
    config = _as_of_version_6(config)
    source = config.site("hook_name")
    transcodes = config.record["architecture"].endswith("transcoder")
    return source, config.site("hook_name_out") if transcodes else source


def _as_of_version_6(config: Config) -> Config:
    """The fields that decide the arithmetic, under their present names, checked."""
    given = {k: v for k, v in config.record.items() if v is not None}
    record = config.field("metadata", dict, {}) | given
    # Before version 6 everything lay flat, and TopK was an activation of the standard SAE.
    record = {"hook_name": record.get("hook_point"), "architecture": "standard"} | record
    activation = record.get("activation_fn", record.get("activation_fn_str", "relu"))
    config = Config(config.path, record)
    if activation == "topk":
        k = config.field("activation_fn_kwargs", dict, {}).get("k")
        config = Config(config.path, {"k": k} | record | {"architecture": "topk"})
    elif activation != "relu":
        raise ValueError(f"{config.path} has activation {activation!r}, expected 'relu' or 'topk'")
    config.check(**READ)
    return config


def _terms(config: Config, tensors: dict[str, Tensor], _: Path) -> Terms:
    config = _as_of_version_6(config)
    kind = config.record["architecture"]
    if bool((tensors.get("scaling_factor", torch.ones(1)) == 1).all()):
        tensors.pop("scaling_factor", None)
    transcodes = kind.endswith("transcoder")
    gate = "jumprelu" if "threshold" in EXTRA[kind] else "relu"
    centred = not transcodes and config.field("apply_b_dec_to_input", bool, True)
    by_norm = kind == "topk" and config.field("rescale_acts_by_decoder_norm", bool, False)
    sizes = {"s": config.field("d_in", int, None), "m": config.field("d_sae", int, None)}
    return Terms(
        axes=GATED if kind == "gated" else AXES | EXTRA[kind],
        centre="b_dec" if centred else None,
        ranked_by="norm" if by_norm else "activation",
        architecture=kind if kind in ("topk", "gated") else gate,
        k=config.field("k", int) if kind == "topk" else None,
        sizes={axis: size for axis, size in sizes.items() if size is not None},
    )


def save(dictionaries: Iterable[SparseDictionary], folder: Path) -> None:
    """Write each dictionary to a folder of its name.

    Raises `ValueError` for a TopK transcoder, a TopK with a skip, and negative features.
    """
    for one in dictionaries:
        kind = _written_as(one)
        tensors = {"W_enc": one.W_enc.T, "b_enc": one.b_enc, "W_dec": one.W_dec, "b_dec": one.b_dec}
        optional = {"threshold": one.threshold, "W_skip": one.W_skip}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        config = _written_config(one, kind)
        save_folder(folder / one.spec.name, WEIGHTS, tensors, CONFIG, config)


def _written_as(one: SparseDictionary) -> str:
    spec = one.spec
    plain_sae = spec.source == spec.target and not spec.skip
    if spec.architecture == "topk":
        if not plain_sae or spec.signed:
            what = "that keeps negative features" if plain_sae else "that is no plain autoencoder"
            raise ValueError(
                f"SAELens has no layout for a TopK dictionary {what}, such as {spec.name}"
            )
        return "topk"
    if plain_sae:
        return "standard" if one.threshold is None else "jumprelu"
    parts = ["jumprelu"] * (one.threshold is not None) + ["skip"] * spec.skip
    return "_".join([*parts, "transcoder"])


def _written_config(one: SparseDictionary, kind: str) -> dict[str, Any]:
    features, d_source = one.W_enc.shape
    config: dict[str, Any] = {
        "architecture": kind,
        "d_in": d_source,
        "d_sae": features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "hook_name": transformer_lens(one.source),
        },
    }
    if kind == "topk":
        config |= {"k": one.spec.k, "rescale_acts_by_decoder_norm": False}
    if kind.endswith("transcoder"):
        config["d_out"] = one.W_dec.shape[1]
        config["metadata"]["hook_name_out"] = transformer_lens(one.target)
    return config


LAYOUT = layout_of_folders(
    "saelens", weights=WEIGHTS, config=CONFIG, sites=_sites, terms=_terms, save=save
)
