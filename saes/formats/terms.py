"""The terms in which the files of any dictionary are told: which tensor is what, what is folded.

    u = a (x - mean) - c                        scaled, then centred
    p = u @ W_enc.T + b_enc
    f = what is on of p, by the architecture
    y = (f @ W_dec + b_dec (+ a x @ W_skip.T)) / b + mean

Ours has a = b = 1, mean = 0 and c = 0: everything else is folded into the weights, in float64
where there is anything to compute, so that a dictionary takes and gives raw activations.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saes.dictionary import SparseDictionary
from saes.formats.folding import centred, gated, shrunk, unit_rows
from saes.formats.place import Entry
from saes.formats.reading import assemble, check_tensors

USUAL_NAMES = {
    "W_enc": ("W_enc", "encoder.weight", "w_enc", "W_E", "enc.weight"),
    "b_enc": ("b_enc", "encoder.bias", "latent_bias", "b_E", "enc.bias"),
    "W_dec": ("W_dec", "decoder.weight", "w_dec", "W_D", "dec.weight"),
    "b_dec": ("b_dec", "decoder.bias", "decoder_bias", "b_D", "bias", "b_pre", "pre_bias"),
    "threshold": ("threshold", "activation_function.threshold"),
    "log_threshold": ("log_threshold", "activation_function.log_jumprelu_threshold"),
    "W_skip": ("W_skip", "affine_skip_connection"),
    "b_gate": ("b_gate", "gate_bias"),
    "b_mag": ("b_mag", "mag_bias"),
    "r_mag": ("r_mag",),
}
"What libraries call each tensor, ours first."
OURS = {"mean": "mean", "centre": "centre"} | {
    theirs: ours for ours, names in USUAL_NAMES.items() for theirs in names
}
MATRICES = ("W_enc", "W_dec")
SHIFTS = ("mean", "centre")
"Tensors of their own that are folded away."
RANKED_BY = ("activation", "norm")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the tensors of a file mean."""

    axes: Mapping[str, str]
    "their tensors, a letter for each axis: m features, s what is read, t what is written, d both;"
    "a threshold without axes is that of all features"
    optional: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=lambda: OURS)
    "what each of theirs is called here"
    mean: str | None = None
    "our name of the tensor that is subtracted before scaling and added at the end, if any"
    centre: str | None = None
    "our name of the tensor that is subtracted after scaling, if any"
    scale: float = 1.0
    "a: what the input is multiplied by"
    target_scale: float = 1.0
    "b: what the reconstruction is divided by"
    ranked_by: str = "activation"
    "`norm` where the k largest, or a threshold, are of p times the decoder row's norm"
    architecture: str = "topk"
    k: int | None = None
    signed: bool = False
    "whether negative features among the k largest are kept"
    sizes: Mapping[str, int] = field(default_factory=dict)
    "what a configuration says that axes have, by their letters"

    def ours(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their tensors under our names, a row for each feature."""
        every, found = {**self.optional, **self.axes}, {}
        for theirs, value in tensors.items():
            name, axes = self.names[theirs], every[theirs]
            turned = axes[0] != "m" if name in MATRICES else axes == "st"
            found[name] = value.T if turned else value
        shared = {k: v.expand(len(found["W_enc"])) for k, v in found.items() if not v.dim()}
        return found | shared

    def folded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a dictionary that takes and gives raw activations."""
        w = self.ours(tensors)
        w.setdefault("b_dec", w["W_dec"].new_zeros(w["W_dec"].shape[1]))
        if "log_threshold" in w:
            w["threshold"] = w.pop("log_threshold").double().exp()
        shift, mean = self._shift(w), w.get(self.mean or "")
        if "r_mag" in w:
            bias = w.pop("b_gate"), w.pop("r_mag"), w.pop("b_mag")
            none = torch.zeros_like(w["W_enc"][0])
            folded = gated(w["W_enc"], *bias, none if shift is None else shift)
            w |= dict(zip(("W_enc", "b_enc", "threshold"), folded, strict=True))
        else:
            w.setdefault("b_enc", w["W_enc"].new_zeros(len(w["W_enc"])))
            w["b_enc"] = w["b_enc"] if shift is None else centred(w["W_enc"], w["b_enc"], shift)
        if self.ranked_by == "norm" and self.architecture != "relu":
            w |= _ranked_by_norm(w)
        w |= _scaled(w, self.scale, self.target_scale)
        if mean is not None:
            w["b_dec"] = w["b_dec"].double() + mean
        return {name: value for name, value in w.items() if name not in SHIFTS}

    def _shift(self, w: Mapping[str, Tensor]) -> Tensor | None:
        """What is subtracted of the scaled input in all."""
        shifts = (self.centre, 1.0), (self.mean, self.scale)
        parts = [w[name].double() * by for name, by in shifts if name is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def read(self, path: Path, tensors: Mapping[str, Tensor], entry: Entry) -> SparseDictionary:
        """The dictionary of these tensors, which `path` holds.

        Raises `ValueError` that starts with `path` where they are not as the terms say.
        """
        axes, optional = self.axes, self.optional
        if self.centre == "b_dec":
            # What is subtracted is what is added: both sides are as wide.
            axes, optional = (
                {k: re.sub("[st]", "d", v) for k, v in x.items()} for x in (axes, optional)
            )
        check_tensors(path, tensors, axes, optional)
        spec: dict[str, Any] = {"source": entry.source, "target": entry.target}
        spec |= {"architecture": self.architecture, "k": self.k, "signed": self.signed}
        return assemble(path, self.folded(tensors), **spec)


def _ranked_by_norm(w: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same choice by activations alone: thresholds shrink, or else features grow."""
    if "threshold" in w:
        return {"threshold": shrunk(w["threshold"], w["W_dec"])}
    names = ("W_enc", "b_enc", "W_dec")
    return dict(zip(names, unit_rows(*(w[name] for name in names)), strict=True))


def _scaled(w: Mapping[str, Tensor], a: float, b: float) -> dict[str, Tensor]:
    by = {"W_enc": a, "W_dec": 1 / b, "b_dec": 1 / b, "W_skip": a / b}
    return {
        name: w[name].double() * factor for name, factor in by.items() if factor != 1 and name in w
    }
