"""What can be done to a node, one row for each: a new operation is a row here.

At one token, feature i becomes

    zero   0                      set    v
    mean   its mean               scale  v f_i
    patch  the patch's value      add    f_i + v
                                  clamp  min(max(f_i, low), high)

An error is a vector: it becomes zero, its mean or the patch's, or is scaled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

# The command line lists the operations without loading torch.
if TYPE_CHECKING:
    from torch import Tensor

Takes = Literal["none", "a value", "(low, high)"]
Needs = Literal["mean", "patch"]


@dataclass(frozen=True, kw_only=True)
class OperationKind:
    """One thing that can be done."""

    said: str = ""
    "what is done, such as 'set to 0'; `{value}` is the operation's value"
    short: str = ""
    "the same in the badge of a figure, such as '×0'"
    become: Callable[["Tensor", Any, "Tensor | None"], "Tensor"]
    "of what the node is, the operation's value, and what it `needs`: what the node becomes"
    formula: str | None = None
    "`become` as the loader of a baked model has it: of `f`, what the node is, and `op`, the "
    "operation as edit.json has it; None where no loader can do it"
    affine: Callable[[Any], tuple[float, float]] | None = None
    "of the value, or of the mean that it `needs`: m and c, where f becomes m f + c"
    takes: Takes = "none"
    "which value it has in a file"
    needs: Needs | None = None
    "what must be known of the node besides"
    of_errors: bool = False
    "whether it can be done to an error too"
    inverse: Callable[[Any], Any] | None = None
    "of the value, the one that undoes it, None for a value that nothing undoes"
    of_off: bool = False
    "whether it does the same to a feature that is off, so that it is done wherever it is asked for"
    pins: bool = False
    "whether what the node becomes does not depend on what it is"
    linear: bool = False
    "whether it takes 0 to 0 and a sum to the sum of what it takes the parts to"

    def check_value(self, name: str, value: Any) -> None:
        """Raise `ValueError` for a value of another kind than it takes."""
        pair = isinstance(value, tuple)
        given: Takes = "(low, high)" if pair else "none" if value is None else "a value"
        if given != self.takes:
            raise ValueError(f"{name} has the value {value}: expected {self.takes}")
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(map(isfinite, numbers)):
            raise ValueError(f"{name} has the value {value}: expected finite numbers")
        if isinstance(value, tuple) and not value[0] <= value[1]:
            raise ValueError(f"{name} is from {value[0]} up to {value[1]}")


def _known(own: "Tensor", value: Any, to: "Tensor | None") -> "Tensor":
    assert to is not None, "looked up by what the operation needs"
    return to.to(own).expand_as(own)


OPERATIONS: dict[str, OperationKind] = {
    "zero": OperationKind(
        said="set to 0",
        short="×0",
        become=lambda own, value, to: own.new_zeros(own.shape),
        formula="f * 0",
        affine=lambda value: (0.0, 0.0),
        of_errors=True,
        pins=True,
        linear=True,
    ),
    "mean": OperationKind(
        said="set to the mean",
        short="= mean",
        become=_known,
        formula='f * 0 + mean(op["node"]).to(f)',
        affine=lambda mean: (0.0, float(mean)),
        needs="mean",
        of_errors=True,
        pins=True,
    ),
    "patch": OperationKind(
        said="set to the value on the patch prompt",
        short="= patch",
        become=_known,
        needs="patch",
        of_errors=True,
        pins=True,
    ),
    "set": OperationKind(
        said="set to {value:g}",
        short="= {value:g}",
        become=lambda own, value, to: own.new_full(own.shape, value),
        formula='f * 0 + op["value"]',
        affine=lambda value: (0.0, float(value)),
        takes="a value",
        pins=True,
    ),
    "scale": OperationKind(
        said="multiplied by {value:g}",
        short="×{value:g}",
        become=lambda own, value, to: own * value,
        formula='f * op["value"]',
        affine=lambda value: (value, 0.0),
        takes="a value",
        of_errors=True,
        linear=True,
        inverse=lambda value: 1 / value if value else None,
    ),
    "add": OperationKind(
        said="moved by {value:+g}",
        short="{value:+g}",
        become=lambda own, value, to: own + value,
        formula='f + op["value"]',
        affine=lambda value: (1.0, value),
        takes="a value",
        inverse=lambda value: -value,
        of_off=True,
    ),
    "clamp": OperationKind(
        said="held from {value[0]:g} to {value[1]:g}",
        short="{value[0]:g} to {value[1]:g}",
        become=lambda own, value, to: own.clamp(*value),
        formula='f.clamp(*op["value"])',
        takes="(low, high)",
    ),
}


VALUED = tuple(name for name, kind in OPERATIONS.items() if kind.takes != "none")
"Those with a value, which features are steered by."


def kind_of(name: Any) -> OperationKind:
    """What is called so; raises `ValueError` for what cannot be done to a node."""
    if not isinstance(name, str) or name not in OPERATIONS:
        raise ValueError(f"cannot {name!r} a node: expected one of {', '.join(OPERATIONS)}")
    return OPERATIONS[name]
