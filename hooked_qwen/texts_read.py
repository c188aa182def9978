"""How far a text was read, so that work that was cut off goes on with the same text or not at all.

What follows a checkpoint depends on every text before it: on the tokens, and on where the next
block begins. A position is the number of texts and a hash of all of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True)
class Position:
    """The texts read so far: how many, and the first 16 hex digits of a SHA-256 of them."""

    texts: int
    hash: str


class TextsRead:
    """Texts as they are, counted and hashed while they are read.

    Raises `ValueError` from the iteration when they are not those that were read `before`.
    """

    def __init__(self, texts: Iterable[str], *, before: Position | None = None) -> None:
        self._texts, self._before = texts, before
        self._count, self._digest = 0, sha256()

    @property
    def position(self) -> Position:
        return Position(self._count, self._digest.hexdigest()[:16])

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            encoded = text.encode("utf-8", "surrogatepass")
            self._digest.update(len(encoded).to_bytes(8, "little") + encoded)
            self._count += 1
            if self._before and self._count == self._before.texts:
                self._check(self._before)
            yield text
        if self._before and self._count < self._before.texts:
            self._check(self._before)

    def _check(self, before: Position) -> None:
        if self.position != before:
            raise ValueError(
                f"the text is not the one that was read before: the first {before.texts:,} texts "
                "differ; give the same text in the same order, or start over elsewhere"
            )
