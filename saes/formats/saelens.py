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

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import layout_of_folders, save_weights
from saes.formats.names import transformer_lens
from saes.formats.place import Entry
from saes.formats.reading import (
    choice,
    field,
    read_json,
    read_safetensors,
    site_field,
)
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
NORMALISATION = {
    None: "",
    False: "",
    "none": "",
    True: "its scaling factor is not in the files",
    "expected_average_only_in": "its scaling factor is not in the files",
    "layer_norm": "it scales each token by its own norm",
    "constant_norm_rescale": "it scales each token by its own norm",
    "covariance_whitening": "its whitening is not in the files",
}


def _sites(path: Path, _: str) -> tuple[Site, Site]:
    config = _config(path)
    is_transcoder = config["architecture"].endswith("transcoder")
    source = site_field(config, path, "hook_name")
    return source, site_field(config, path, "hook_name_out") if is_transcoder else source


def _config(path: Path) -> dict[str, Any]:
    """The fields that decide the arithmetic, as version 6 names them, checked."""
    record = read_json(path)
    config = {
        **field(record, path, "metadata", dict, {}),
        **{k: v for k, v in record.items() if v is not None},
    }
    # Before version 6 everything lay flat, and TopK was an activation of the standard SAE.
    if "hook_point" in config:
        config.setdefault("hook_name", config["hook_point"])
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if activation == "topk":
        options = field(config, path, "activation_fn_kwargs", dict, {})
        config = {"k": options.get("k")} | config | {"architecture": "topk"}
    elif activation != "relu":
        raise ValueError(f"{path} has activation {activation!r}, expected 'relu' or 'topk'")
    config.setdefault("architecture", "standard")
    choice(config, path, "architecture", dict.fromkeys(EXTRA, ""), None)
    choice(config, path, "normalize_activations", NORMALISATION, None)
    choice(
        config,
        path,
        "reshape_activations",
        {"none": "", "hook_z": "it reads heads before they are mixed"},
        "none",
    )
    choice(
        config,
        path,
        "finetuning_scaling_factor",
        {False: "", True: "it rescales the features"},
        False,
    )
    return config


def load(entry: Entry) -> SparseDictionary:
    path, about = entry.fetch()
    config, tensors = _config(about), read_safetensors(path)
    kind = config["architecture"]
    if bool((tensors.get("scaling_factor", torch.ones(1)) == 1).all()):
        tensors.pop("scaling_factor", None)
    centred = not kind.endswith("transcoder") and field(
        config, about, "apply_b_dec_to_input", bool, True
    )
    by_norm = kind == "topk" and field(config, about, "rescale_acts_by_decoder_norm", bool, False)
    terms = Terms(
        axes=GATED if kind == "gated" else AXES | EXTRA[kind],
        centre="b_dec" if centred else None,
        ranked_by="norm" if by_norm else "activation",
        architecture=_architecture(kind),
        k=field(config, about, "k", int) if kind == "topk" else None,
    )
    read = terms.read(path, tensors, entry)
    _check_sizes(config, about, path, read)
    return read


def _check_sizes(
    config: Mapping[str, Any], about: Path, path: Path, read: SparseDictionary
) -> None:
    features, width = read.W_enc.shape
    said = field(config, about, "d_in", int, width), field(config, about, "d_sae", int, features)
    if said != (width, features):
        raise ValueError(f"{path}: W_enc is {(width, features)}, {CONFIG} says {said}")


def _architecture(kind: str) -> str:
    if kind in ("topk", "gated"):
        return kind
    return "jumprelu" if kind.startswith("jumprelu") else "relu"


def save(dictionaries: Iterable[SparseDictionary], folder: Path) -> None:
    """Write each dictionary to a folder of its name.

    Raises `ValueError` for a TopK transcoder, a TopK with a skip, and negative features.
    """
    for one in dictionaries:
        kind = _written_as(one)
        tensors = {"W_enc": one.W_enc.T, "b_enc": one.b_enc, "W_dec": one.W_dec, "b_dec": one.b_dec}
        optional = {"threshold": one.threshold, "W_skip": one.W_skip}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        save_weights(tensors, folder / one.spec.name / WEIGHTS)
        text = json.dumps(_written_config(one, kind), indent=1) + "\n"
        (folder / one.spec.name / CONFIG).write_text(text, encoding="utf-8")


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
    "saelens", weights=WEIGHTS, config=CONFIG, sites=_sites, load=load, save=save
)
