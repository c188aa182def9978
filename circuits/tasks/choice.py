"""The words of one split that a tokenizer knows, and what it does not know of each list."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

from hooked_qwen.families import SPLITS, Split
from hooked_qwen.tokens import encode

WordOrPair = TypeVar("WordOrPair", str, tuple[str, str])


class Choice:
    """Hands out word lists, half of each, and keeps count for the message when too few are left."""

    def __init__(self, tokenizer: Any, split: Split) -> None:
        self.split = split
        self.content: set[str] = set()
        "every word handed out, none of which the other split hands out"
        self.shortages: list[str] = []
        self._tokens: Callable[[str], list[int]] = cache(partial(encode, tokenizer))

    def half(self, entries: Sequence[WordOrPair]) -> tuple[WordOrPair, ...]:
        """Even entries for `train`, odd ones for `test`, whether or not they are single tokens."""
        chosen = tuple(entries[SPLITS.index(self.split) :: len(SPLITS)])
        self.content.update(word for entry in chosen for word in _words(entry))
        return chosen

    def pick(
        self, kind: str, entries: Sequence[WordOrPair], *, before: str = " "
    ) -> tuple[WordOrPair, ...]:
        """The entries of this half whose words are one token each when written after `before`."""
        half = self.half(entries)
        kept = tuple(e for e in half if all(self.is_token(before + word) for word in _words(e)))
        if len(kept) < len(half):
            self.shortages.append(f"{len(kept)} of {len(half)} {kind}")
        return kept

    def is_token(self, text: str) -> bool:
        """Whether `text` is one token when it stands alone."""
        return self.length(text) == 1

    def continues(self, text: str, answer: str) -> bool:
        """Whether `answer` is one token, alone and as what `text` is continued with."""
        tokens, more = self._tokens(text), self._tokens(answer)
        return len(more) == 1 and self._tokens(text + answer) == tokens + more

    def length(self, text: str) -> int:
        """How many tokens `text` has."""
        return len(self._tokens(text))


def _words(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry
