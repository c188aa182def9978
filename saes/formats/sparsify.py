"""sparsify: a folder for each hook point, named as Hugging Face names the module.

    layers.3.mlp/{cfg.json,sae.safetensors}
        encoder.weight [m, d], encoder.bias [m], W_dec [m, d], b_dec [d], optional W_skip [d, d]

    u = x - b_dec, or x with `transcode`;   p = relu(u @ encoder.weight.T + encoder.bias)
    f = p, all but the k largest zeroed;    y = f @ W_dec + b_dec (+ x @ W_skip.T)

An autoencoder reads and writes the module's output; with `transcode` it reads the input. m is
`num_latents`, or d * `expansion_factor` where that is 0. `groupmax` and `signed` are refused.

Written: TopK. The centring is put back into the bias, so what is read again differs from it by
one rounding; everything else comes back bit for bit.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.folding import centred
from saes.formats.layout import layout_of_folders, save_weights
from saes.formats.names import hugging_face, to_site
from saes.formats.place import Entry
from saes.formats.reading import (
    choice,
    field,
    read_json,
    read_safetensors,
)
from saes.formats.terms import Terms

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
AXES = {"encoder.weight": "md", "encoder.bias": "m", "W_dec": "md", "b_dec": "d"}


def _sites(path: Path, name: str) -> tuple[Site, Site]:
    config = read_json(path)
    try:
        target = to_site(name)
        source = to_site(f"{name}.input") if _transcodes(config, path) else target
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return source, target


def _transcodes(config: dict, path: Path) -> bool:
    return field(config, path, "transcode", bool, False)


def load(entry: Entry) -> SparseDictionary:
    path, about = entry.fetch()
    config, tensors = read_json(about), read_safetensors(path)
    choice(config, about, "activation", {"topk": "", "groupmax": "one per group"}, "topk")
    choice(config, about, "signed", {False: "", True: "it chooses by magnitude"}, False)
    skip = {"W_skip": "dd"} if field(config, about, "skip_connection", bool, False) else {}
    d = field(config, about, "d_in", int)
    m = field(config, about, "num_latents", int, 0)
    m = m or d * field(config, about, "expansion_factor", int)
    terms = Terms(
        axes=AXES | skip,
        centre=None if _transcodes(config, about) else "b_dec",
        k=field(config, about, "k", int),
    )
    read = terms.read(path, tensors, entry)
    if tuple(read.W_enc.shape) != (m, d):
        found = tuple(read.W_enc.shape)
        raise ValueError(f"{path}: encoder.weight is {found}, {CONFIG} says {(m, d)}")
    return read


def save(dictionaries: Iterable[SparseDictionary], folder: Path) -> None:
    """Write each dictionary to the folder of its hook point.

    Raises `ValueError` for what is not TopK with non-negative features, and for sites that are
    not the output of one module, read there or at its input.
    """
    for one in dictionaries:
        hook_point = _hook_point(one)
        transcode = one.source != one.target
        bias = one.b_enc if transcode else centred(one.W_enc, one.b_enc, -one.b_dec)
        tensors = {
            "encoder.weight": one.W_enc,
            "encoder.bias": bias,
            "W_dec": one.W_dec,
            "b_dec": one.b_dec,
        }
        if one.W_skip is not None:
            tensors["W_skip"] = one.W_skip
        features, d = one.W_enc.shape
        config = {
            "activation": "topk",
            "expansion_factor": max(1, features // d),
            "normalize_decoder": True,
            "num_latents": features,
            "k": one.spec.k,
            "multi_topk": False,
            "skip_connection": one.W_skip is not None,
            "transcode": transcode,
            "d_in": d,
        }
        save_weights(tensors, folder / hook_point / WEIGHTS)
        text = json.dumps(config, indent=1) + "\n"
        (folder / hook_point / CONFIG).write_text(text, encoding="utf-8")


def _hook_point(one: SparseDictionary) -> str:
    spec = one.spec
    if spec.architecture != "topk" or spec.signed:
        what = "negative features" if spec.signed else spec.architecture
        raise ValueError(f"sparsify holds TopK dictionaries only: {spec.name} has {what}")
    if one.W_enc.shape[1] != one.W_dec.shape[1]:
        raise ValueError(f"sparsify holds one width for both sites: {spec.name} has two")
    name, _, side = hugging_face(spec.target).removeprefix("model.").rpartition(".")
    if side == "output" and spec.source in (spec.target, _input_of(name)):
        return name
    raise ValueError(
        f"sparsify reads and writes at one module: {spec.name} is not the output of one, "
        "read there or at its input"
    )


def _input_of(module: str) -> Site | None:
    try:
        return to_site(f"{module}.input")
    except ValueError:
        return None


LAYOUT = layout_of_folders(
    "sparsify", weights=WEIGHTS, config=CONFIG, sites=_sites, load=load, save=save
)
