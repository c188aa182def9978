"""Whether an edit did anything, and if not, what came nearest.

An edit that changes nothing looks the same as features that do nothing. Everything is noted on
the device and read at the end, or every few passes until something is known to have been done.

Axes: `rows` texts of a pass, `pos` its tokens, `chosen` features of one dictionary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.notices import counted
from hooked_qwen.tokens import token_strings
from saes.edit_file import Edit, Operation, Where
from saes.operations import kind_of

PENDING = 1 << 20
"Numbers that are kept before they are looked at."
LOOKED_AT = 8
"Passes from one look at whether anything was done to the next: each waits for the device."
SHOWN = 3
"Features whose largest activation is told."
# A feature's largest activation, the position of that token, its number in the vocabulary.
Peaks = Float[Tensor, "3 chosen"]


def tokens_at(
    positions: Where | tuple[int, ...],
    tokens: Int[Tensor, "*batch"],
    prompt_lengths: Int[Tensor, "*#batch"],
) -> Bool[Tensor, "*batch"]:
    """Which of `tokens`, numbers in their texts, -1 for padding, are called so."""
    found = tokens >= 0
    if isinstance(positions, tuple):
        return found & torch.isin(tokens, torch.tensor(positions, device=tokens.device))
    if positions == "all":
        return found
    if positions == "prompt":
        return found & (tokens < prompt_lengths)
    return tokens >= (prompt_lengths - 1 if positions == "last" else prompt_lengths)


class Firing:
    """What was done in the runs of one block."""

    def __init__(self) -> None:
        self._done: Tensor | None = None
        self._tokens: list[Int[Tensor, "2 tokens"]] = []
        self._places: Int[Tensor, "2 tokens"] = torch.empty(2, 0, dtype=torch.long)
        "of the tokens of the pass: the number in its text, the number in the vocabulary"
        self._peaks: dict[tuple[str, Sequence[int]], Peaks] = {}
        self._seen: list[tuple[tuple[str, Sequence[int]], Tensor, Tensor]] = []
        self._pending = self._passes = 0
        self._fired = False
        "known to have; nothing more is noted of what was done"

    def passed(
        self,
        tokens: Int[Tensor, "rows pos"],
        prompt_lengths: Int[Tensor, " rows"],
        ids: Int[Tensor, "rows pos"] | None,
    ) -> None:
        """A pass over these tokens (as in `TextPositions`), in which operations are asked for."""
        lengths = prompt_lengths.unsqueeze(-1).expand(tokens.shape)
        self._tokens.append(torch.stack([tokens.flatten(), lengths.flatten()]))
        ids = torch.full_like(tokens, -1) if ids is None else ids
        self._places = torch.stack([tokens.flatten(), ids.flatten()])
        self._hold(2 * tokens.numel())
        self._passes += 1
        if not self._fired and self._passes % LOOKED_AT == 0 and self._done is not None:
            self._fired = bool(self._done)
            self._seen = [] if self._fired else self._seen

    @property
    def fired(self) -> bool:
        """Whether anything was done so far."""
        return self._fired or (self._done is not None and bool(self._done))

    def did(self, operation: Operation, at: Tensor, own: Tensor, changed: Tensor) -> None:
        """At some tokens a node that was `own` became `changed`."""
        if self._fired:
            return
        live = at if kind_of(operation.do).of_off else at & ((own != 0) | (changed != own))
        found = live.any()
        self._done = found if self._done is None else self._done | found

    def saw(
        self,
        name: str,
        chosen: Sequence[int],
        value: Float[Tensor, "rows pos chosen"],
    ) -> None:
        """The `chosen` features of a dictionary, as they arrived in the pass."""
        if self._fired:
            return
        self._seen.append(((name, chosen), value.detach().flatten(0, 1), self._places))
        self._hold(value.numel())

    def _hold(self, more: int) -> None:
        """Numbers are kept as they come and looked at many together, tokens of generation too."""
        self._pending += more
        if self._pending > PENDING:
            self._look()

    def _look(self) -> None:
        if self._tokens:
            self._tokens = [torch.cat(self._tokens, 1).unique(dim=1)]
        by_key: dict[tuple[str, Sequence[int]], list[tuple[Tensor, Tensor]]] = {}
        for key, value, places in self._seen:
            by_key.setdefault(key, []).append((value, places))
        self._seen, self._pending = [], 0
        for key, parts in by_key.items():
            value, places = torch.cat([v for v, _ in parts]), torch.cat([p for _, p in parts], 1)
            size = value.abs().masked_fill((places[0] < 0).unsqueeze(-1), -1.0)
            peak, at = size.max(0)
            found = torch.stack([peak, *places[:, at].to(peak)])
            known = self._peaks.get(key)
            self._peaks[key] = (
                found if known is None else torch.where(found[0] > known[0], found, known)
            )

    def require(self, edit: Edit, tokenizer: Any) -> None:
        """Raise `RuntimeError` for an operation that had no token, or where nothing was done."""
        self._look()
        reached: dict[Any, bool] = {}
        for operation in edit.operations:
            key = operation.positions, operation.node.position
            if key not in reached:
                reached[key] = self._reached(operation)
            if not reached[key]:
                _raise_unreached(operation)
        if self.fired:
            return
        near = [self._nearest(operation, tokenizer) for operation in edit.operations[:SHOWN]]
        more = len(edit.operations) - len(near)
        rest = f"; and so for {counted(more, 'other operation')}" if more else ""
        raise RuntimeError(f"the edit fired on nothing that was run: {'; '.join(near)}{rest}")

    def _reached(self, operation: Operation) -> bool:
        """Whether a pass had a token that an operation is asked for at."""
        if not self._tokens:
            return False
        tokens, lengths = self._tokens[0]
        at = tokens_at(operation.positions, tokens, lengths)
        if operation.node.position is not None:
            at = at & (tokens == operation.node.position)
        return bool(at.any())

    def _nearest(self, operation: Operation, tokenizer: Any) -> str:
        where, when = _where(operation), operation.when
        where += " but at norm outliers" if operation.norm_below else ""
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
