"""dictionary_learning: `ae.pt` and `config.json` of one trainer a folder.

    AutoEncoder         encoder.weight [m, d], encoder.bias, decoder.weight [d, m], bias [d]
    AutoEncoderNew      the same with decoder.bias; its input is not centred
    AutoEncoderTopK     the first with b_dec, k, and a threshold that inference does not use
    BatchTopKSAE        the first with b_dec, k, threshold (one number; -1 while unset)
    MatryoshkaBatchTopKSAE  W_enc [d, m], W_dec [m, d], b_enc, b_dec, k, threshold, group_sizes
    JumpReluAutoEncoder W_enc [d, m], W_dec [m, d], b_enc, b_dec, threshold [m]; not centred
    GatedAutoEncoder    encoder.weight, decoder.weight, decoder_bias, r_mag, gate_bias, mag_bias

    p = (x - b_dec) @ W_enc + b_enc;   y = f @ W_dec + b_dec
    f = relu(p) | the k largest of relu(p) | relu(p) * [p > threshold]

Differs: a batch TopK whose threshold is unset is read as TopK with its k, and says so in a
warning; the library itself would compare with -1, which lets every positive feature through.
"""

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from hooked_qwen.sites import Site
from saes.formats.layout import layout_of_folders
from saes.formats.reading import Config
from saes.formats.terms import Terms

LINEAR = {"encoder.weight": "md", "decoder.weight": "dm"}
FLAT = {"W_enc": "dm", "W_dec": "md", "b_enc": "m", "b_dec": "d"}
CLASSES = {
    "AutoEncoder": LINEAR | {"encoder.bias": "m", "bias": "d"},
    "AutoEncoderNew": LINEAR | {"encoder.bias": "m", "decoder.bias": "d"},
    "AutoEncoderTopK": LINEAR | {"encoder.bias": "m", "b_dec": "d"},
    "BatchTopKSAE": LINEAR | {"encoder.bias": "m", "b_dec": "d"},
    "MatryoshkaBatchTopKSAE": FLAT,
    "JumpReluAutoEncoder": FLAT | {"threshold": "m"},
    "GatedAutoEncoder": LINEAR
    | {"decoder_bias": "d", "r_mag": "m", "gate_bias": "m", "mag_bias": "m"},
}
ARCHITECTURES = {
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batch-topk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}
NOT_CENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")


def _trainer(config: Config) -> Config:
    return Config(config.path, config.field("trainer", dict))


def _sites(config: Config, _: str) -> tuple[Site, Site]:
    buffer = Config(config.path, config.field("buffer", dict, {}))
    buffer.check(io={"out": "", "in": "an input", "in_and_out": "a transcoder"})
    trainer = _trainer(config)
    trainer.check(dict_class={None: "it is not there"} | dict.fromkeys(CLASSES, ""))
    name, layer = trainer.field("submodule_name", str), trainer.field("layer", int)
    named = re.fullmatch(r"(resid_pre|resid_post|attn_out|mlp_out)(_layer_\d+)?", name)
    site = trainer.site_called(f"{named[1]}.{layer}" if named else name)
    return site, site


def _terms(config: Config, tensors: dict[str, Tensor], path: Path) -> Terms:
    kind = _trainer(config).record["dict_class"]
    k, threshold = _scalar(path, tensors, "k"), None
    if kind != "JumpReluAutoEncoder":
        threshold = _scalar(path, tensors, "threshold")
    tensors.pop("group_sizes", None)
    axes, architecture = CLASSES[kind], ARCHITECTURES.get(kind, "relu")
    if architecture in ("batch-topk", "matryoshka"):
        if threshold is None or threshold < 0:
            warnings.warn(f"{path} has no threshold yet: read as TopK with k = {k}", stacklevel=2)
            architecture = "topk"
        else:
            tensors["threshold"] = torch.tensor(threshold)
            axes = axes | {"threshold": ""}
    return Terms(
        axes=axes,
        centre=None if kind in NOT_CENTRED else "b_dec",
        architecture=architecture,
        k=None if k is None else int(k),
    )


def _scalar(path: Path, tensors: dict[str, Tensor], name: str) -> float | None:
    value = tensors.pop(name, None)
    if value is None:
        return None
    if value.numel() != 1 or value.is_complex() or not bool(torch.isfinite(value).all()):
        raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, expected one number")
    return float(value)


LAYOUT = layout_of_folders(
    "dictionary-learning",
    weights="ae.pt",
    config="config.json",
    sites=_sites,
    terms=_terms,
    # All of a sweep's folders are called trainer_0, trainer_1 and so on, in one folder a site.
    name_of=lambda place, folder: folder or place.name,
)
