"""The sparse dictionary: features read at one site, written at another.

    pre = x @ W_enc.T + b_enc
    f   = nonlinearity(pre)                     features, non-negative unless the spec is `signed`
    y   = f @ W_dec + b_dec (+ x @ W_skip.T)    on raw activations

A sparse autoencoder (SAE) is the case source == target; an MLP transcoder reads `mlp_in.L` and
writes `mlp_out.L`. Nothing else tells them apart. Row i of both weight matrices is feature i.

Axes: `features` a dictionary's latents, `d_source` and `d_target` the widths of the two sites.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_qwen.placement import device_of
from hooked_qwen.precision import our_precision
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import aligned
from saes.architectures.table import ARCHITECTURES, architecture
from saes.nonlinearities import above_threshold, topk


@dataclass(frozen=True, kw_only=True)
class DictionarySpec:
    """What a dictionary is, apart from its weights.

    Raises `ValueError` for an unknown architecture, for `topk` without a `k`, and for negative
    features of any architecture but `topk`.
    """

    source: Site
    target: Site
    architecture: str = "topk"
    k: int | None = None
    "features per token: that many at most for `topk`; for the others the average trained for"
    skip: bool = False
    "whether a linear map of the source adds to the features' output"
    signed: bool = False
    "whether the k largest pre-activations are kept where negative, as Qwen-Scope's are"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"no architecture is called {self.architecture!r}: "
                f"expected one of {', '.join(ARCHITECTURES)}"
            )
        if self.architecture == "topk" and self.k is None:
            raise ValueError("topk needs a k, the number of features per token")
        if self.signed and self.architecture != "topk":
            raise ValueError(f"only topk keeps negative features, not {self.architecture}")

    @property
    def name(self) -> str:
        """Its folder's name: the target site, after the source where that is another."""
        if self.source == self.target:
            return str(self.target)
        return f"{self.source}-{self.target}"


class SparseDictionary(nn.Module):
    """A dictionary with everything folded into its weights: it takes and gives raw activations."""

    W_enc: Float[Tensor, "features d_source"]
    b_enc: Float[Tensor, " features"]
    W_dec: Float[Tensor, "features d_target"]
    b_dec: Float[Tensor, " d_target"]
    threshold: Float[Tensor, " features"] | None
    W_skip: Float[Tensor, "d_target d_source"] | None

    def __init__(self, spec: DictionarySpec, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.spec = replace(spec, skip="W_skip" in weights)
        check_weights(spec, weights)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip"):
            # A row of a stacked tensor, say, would give other roundings than the same row alone.
            self.register_buffer(name, aligned(weights[name]) if name in weights else None)

    def __repr__(self) -> str:
        spec, dtype = self.spec, str(self.W_enc.dtype).removeprefix("torch.")
        k = "" if spec.k is None else f", k = {spec.k}"
        skip = ", skip" if spec.skip else ""
        sites = f"{spec.source} -> {spec.target}"
        where = f"{dtype} on {self.W_enc.device}"
        return (
            f"SparseDictionary({spec.architecture}{k}{skip}, {self.n_features} features, "
            f"{sites}, {where})"
        )

    @property
    def source(self) -> Site:
        return self.spec.source

    @property
    def target(self) -> Site:
        return self.spec.target

    @property
    def n_features(self) -> int:
        return len(self.W_enc)

    def pre_activations(
        self, x: Float[Tensor, "*batch d_source"]
    ) -> Float[Tensor, "*batch features"]:
        """What each feature reads in the source activations `x`."""
        return x @ self.W_enc.T + self.b_enc

    def encode(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch features"]:
        """Features of the source activations `x`; zero where a feature is off."""
        pre = self.pre_activations(x)
        if self.spec.architecture == "topk":
            assert self.spec.k is not None
            return topk(pre, self.spec.k, signed=self.spec.signed)
        return pre.relu() if self.threshold is None else above_threshold(pre, self.threshold)

    def write(self, f: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch d_target"]:
        """What the features, or a change of them, add to the target."""
        return f @ self.W_dec

    def along(self, g: Float[Tensor, "*batch d_target"]) -> Float[Tensor, "*batch features"]:
        """A gradient at the target along each feature's direction: the adjoint of `write`."""
        return g @ self.W_dec.T

    def decode(self, f: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch d_target"]:
        """What the features write at the target, with the bias, without any skip connection."""
        return self.write(f) + self.b_dec

    def skip(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch d_target"] | float:
        """What the linear skip connection adds, 0 where there is none."""
        return 0.0 if self.W_skip is None else x @ self.W_skip.T

    def forward(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch d_target"]:
        """The reconstruction of the target from the source activations `x`."""
        return self.decode(self.encode(x)) + self.skip(x)


def fitted(dictionary: SparseDictionary, model: nn.Module) -> SparseDictionary:
    """The dictionary in the precision and on the device that a model's activations have.

    Itself where it is so already.
    """
    wanted = our_precision(model), device_of(model)
    if (dictionary.W_dec.dtype, dictionary.W_dec.device) == wanted:
        return dictionary
    return deepcopy(dictionary).to(dtype=wanted[0], device=wanted[1])


def check_weights(spec: DictionarySpec, weights: dict[str, Tensor]) -> None:
    """Raise `ValueError` when a tensor is missing, unknown, misshapen or not finite."""
    required = {"W_enc", "b_enc", "W_dec", "b_dec"}
    if missing := required - weights.keys():
        raise ValueError(f"a dictionary needs {', '.join(sorted(missing))}, which is not there")
    if extra := weights.keys() - required - {"threshold", "W_skip"}:
        raise ValueError(f"a dictionary has no tensor called {', '.join(sorted(extra))}")
    features, d_source = _matrix("W_enc", weights)
    rows, d_target = _matrix("W_dec", weights)
    if features != rows and d_source == rows == len(weights["b_enc"]):
        raise ValueError(
            f"W_enc has shape {(features, d_source)}: it is transposed, expected "
            f"{(d_source, features)}, one row for each of the {rows} features"
        )
    if d_target != rows and d_target == features == len(weights["b_enc"]):
        raise ValueError(
            f"W_dec has shape {(rows, d_target)}: it is transposed, expected "
            f"{(d_target, rows)}, one row for each of the {features} features"
        )
    expected = {
        "W_enc": (features, d_source),
        "W_dec": (features, d_target),
        "b_enc": (features,),
        "b_dec": (d_target,),
        "threshold": (features,),
        "W_skip": (d_target, d_source),
    }
    for name, value in weights.items():
        if tuple(value.shape) != expected[name]:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {expected[name]}")
    _require_finite(weights)
    if spec.source == spec.target and d_source != d_target:
        raise ValueError(f"an SAE reads and writes one site, but {d_source} != {d_target}")
    if spec.k is not None and not 0 < spec.k <= features:
        raise ValueError(f"k is {spec.k}, expected 1 to {features}, the number of features")
    has_threshold = "threshold" in weights
    wants = architecture(spec.architecture).threshold != "none"
    if has_threshold != wants:
        raise ValueError(
            f"the architecture {spec.architecture!r} "
            f"{'needs a' if wants else 'has no'} threshold tensor"
        )


def _require_finite(weights: dict[str, Tensor]) -> None:
    # Asked all at once: each answer waits for the device.
    finite = torch.stack([torch.isfinite(value).all() for value in weights.values()]).tolist()
    for name, whole in zip(weights, finite, strict=True):
        if not whole:
            raise ValueError(f"{name} holds numbers that are not finite")


def _matrix(name: str, weights: dict[str, Tensor]) -> tuple[int, int]:
    if weights[name].dim() != 2:
        raise ValueError(f"{name} has {weights[name].dim()} axes, expected 2")
    rows, columns = weights[name].shape
    return rows, columns
