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

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.folding import centred
from saes.formats.layout import layout_of_folders, save_folder
from saes.formats.names import hugging_face, to_site
from saes.formats.reading import Config
from saes.formats.terms import Terms

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
AXES = {"encoder.weight": "md", "encoder.bias": "m", "W_dec": "md", "b_dec": "d"}


def _sites(config: Config, name: str) -> tuple[Site, Site]:
    target = config.site_called(name)
    return config.site_called(f"{name}.input") if _transcodes(config) else target, target


def _transcodes(config: Config) -> bool:
    return config.field("transcode", bool, False)


def _terms(config: Config, tensors: Mapping[str, Tensor], _: Path) -> Terms:
    config.check(
        activation={"topk": "", "groupmax": "one per group"},
        signed={False: "", True: "it chooses by magnitude"},
    )
    skips, d = config.field("skip_connection", bool, False), config.field("d_in", int)
    m = config.field("num_latents", int, 0) or d * config.field("expansion_factor", int)
    return Terms(
        axes=AXES | ({"W_skip": "dd"} if skips else {}),
        centre=None if _transcodes(config) else "b_dec",
        k=config.field("k", int),
        sizes={"m": m, "d": d},
    )


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
        save_folder(folder / hook_point, WEIGHTS, tensors, CONFIG, config)


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
    "sparsify", weights=WEIGHTS, config=CONFIG, sites=_sites, terms=_terms, save=save
)
