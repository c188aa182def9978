"""What a dictionary is, apart from its weights, and which weights fit that."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hooked_qwen.sites import Ends
from saes.architectures.table import ARCHITECTURES, architecture


@dataclass(frozen=True, kw_only=True)
class DictionarySpec(Ends):
    """What a dictionary is, apart from its weights.

    Raises `ValueError` for an unknown architecture, for `topk` without a `k`, and for negative
    features of any architecture but `topk`.
    """

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
        if self.also_writes and not self.called:
            raise ValueError(
                f"a dictionary that writes {', '.join(map(str, self.writes))} needs a name of its "
                "own: give it in `called`"
            )

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.both_ends


Check = Callable[[DictionarySpec, dict[str, Tensor]], None]


def check_weights(spec: DictionarySpec, weights: dict[str, Tensor]) -> None:
    """Raise `ValueError` when a tensor is missing, unknown, misshapen or not finite."""
    check_shapes(spec, weights)
    _require_finite(weights)


def check_shapes(spec: DictionarySpec, weights: dict[str, Tensor]) -> None:
    """`check_weights` without a look at the numbers, for which the host waits for the device.

    Enough for weights that are computed from those of a dictionary that was checked.
    """
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
    if spec.reads == spec.writes and d_source != d_target:
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
    # A sum is finite only if its terms are; it needs no memory, where a mask of each takes a
    # quarter of the weights. All are asked at once: each answer waits for the device.
    sums = torch.stack([value.sum().double() for value in weights.values()]).isfinite().tolist()
    for name, whole in zip(weights, sums, strict=True):
        if not whole and not torch.isfinite(weights[name]).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def _matrix(name: str, weights: dict[str, Tensor]) -> tuple[int, int]:
    if weights[name].dim() != 2:
        raise ValueError(f"{name} has {weights[name].dim()} axes, expected 2")
    rows, columns = weights[name].shape
    return rows, columns
