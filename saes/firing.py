"""Whether an edit did anything, and if not, what came nearest.

An edit that changes nothing looks the same as features that do nothing. Everything is noted on
the device, without waiting for it, and read once at the end.

Axes: `rows` texts of a pass, `pos` its tokens, `chosen` features of one dictionary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.notices import counted
from hooked_qwen.positions import TextPositions
from hooked_qwen.tokens import token_strings
from saes.edit_file import Edit, Operation
from saes.operations import kind_of

SHOWN = 3
"Features whose largest activation is told."
# A feature's largest activation, the position of that token, its number in the vocabulary.
Peaks = Float[Tensor, "3 chosen"]


class Firing:
    """What was done in the runs of one block."""

    def __init__(self) -> None:
        self._done: Tensor | None = None
        self._reached: dict[Any, Tensor] = {}
        self._peaks: dict[tuple[str, Sequence[int]], Peaks] = {}

    def reached(self, operation: Operation, at: Bool[Tensor, "rows pos"]) -> None:
        """The tokens of a pass that an operation is asked for at."""
        key, found = _asked(operation), at.any()
        self._reached[key] = self._reached[key] | found if key in self._reached else found

    def did(self, operation: Operation, at: Tensor, own: Tensor, changed: Tensor) -> None:
        """At some tokens a node that was `own` became `changed`."""
        live = at if kind_of(operation.do).of_off else at & ((own != 0) | (changed != own))
        found = live.any()
        self._done = found if self._done is None else self._done | found

    def saw(
        self,
        name: str,
        chosen: Sequence[int],
        value: Float[Tensor, "rows pos chosen"],
        text: TextPositions,
    ) -> None:
        """The `chosen` features of a dictionary, as they arrived in a pass."""
        real = (text.tokens >= 0).unsqueeze(-1)
        size = value.abs().masked_fill(~real, -1.0).flatten(0, 1)
        peak, at = size.max(0)
        place = text.tokens.flatten()[at]
        word = torch.full_like(place, -1) if text.ids is None else text.ids.flatten()[at]
        found = torch.stack([x.to(peak) for x in (peak, place, word)])
        key = name, chosen
        known = self._peaks.get(key)
        self._peaks[key] = (
            found if known is None else torch.where(found[0] > known[0], found, known)
        )

    def require(self, edit: Edit, tokenizer: Any) -> None:
        """Raise `RuntimeError` for an operation that had no token, or where nothing was done."""
        for operation in edit.operations:
            if not self._reached.get(_asked(operation), False):
                _raise_unreached(operation)
        if self._done is None or self._done:
            return
        near = [self._nearest(operation, tokenizer) for operation in edit.operations[:SHOWN]]
        more = len(edit.operations) - len(near)
        rest = f"; and so for {counted(more, 'other operation')}" if more else ""
        raise RuntimeError(f"the edit fired on nothing that was run: {'; '.join(near)}{rest}")

    def _nearest(self, operation: Operation, tokenizer: Any) -> str:
        where, when = _where(operation), operation.when
        if when is not None and self._peak(when.node)[0] <= when.above:
            node = when.node
            return (
                f"{operation.do} of {operation.node}{where} wants {node} above "
                f"{when.above:g}, which {self._told(node, tokenizer)}"
            )
        if operation.node.feature == EVERY:
            return f"no feature that {operation.node}{where} names was on"
        return (
            f"{operation.node}, to {operation.do}{where}, {self._told(operation.node, tokenizer)}"
        )

    def _told(self, node: Node, tokenizer: Any) -> str:
        peak, place, word = self._peak(node)
        if peak <= 0:
            return "was off at every token"
        known = tokenizer is not None and word >= 0
        text = f" ({token_strings(tokenizer, [int(word)])[0]!r})" if known else ""
        return f"was {peak:.3g} at most, at token {int(place)}{text}"

    def _peak(self, node: Node) -> tuple[float, float, float]:
        found = (-1.0, -1.0, -1.0)
        for (name, features), peaks in self._peaks.items():
            if name == node.site and int(node.feature) in features:
                here = peaks[:, features.index(int(node.feature))].tolist()
                found = max(found, (here[0], here[1], here[2]))
        return found


def _asked(operation: Operation) -> Any:
    """Which tokens an operation is asked for at; operations at the same share what is noted."""
    return operation.positions, operation.node.position, operation.node.site


def _where(operation: Operation) -> str:
    if operation.positions == "all" and operation.node.position is None:
        return ""
    where = operation.positions
    return f" at the positions {where if isinstance(where, str) else list(where)}"


def _raise_unreached(operation: Operation) -> None:
    raise RuntimeError(
        f"{operation.do} of {operation.node}{_where(operation)} was never done: no text that was "
        "run inside the block has such a token"
    )
