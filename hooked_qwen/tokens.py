"""Text to tokens: left-padded prompt batches, and packed blocks of running text.

Axes: `batch` prompts, `pos` token positions counted from the left, padding included.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SUFFIXES = (".txt", ".md", ".py", ".jsonl")
END_OF_TEXT = "<|endoftext|>"
# Tokenizers are fastest, and memory stays flat, on pieces of this size.
CHARACTERS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts of one batch, padded on the left so that the last token is the last column."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    "True where there is a real token."

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Int[Tensor, " chosen"]) -> "Batch":
        return Batch(tokens=self.tokens[index], mask=self.mask[index])

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(tokens=self.tokens.to(device), mask=self.mask.to(device))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` with nothing added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """One batch of token rows of any lengths; raises `ValueError` on an empty prompt."""
    if not rows or not all(rows):
        raise ValueError("a prompt has no tokens: every prompt needs at least one")
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width)[None, :] >= width - lengths[:, None]
    return Batch(tokens=tokens, mask=mask)


def token_strings(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    """Each token as the text it stands for, its leading space kept."""
    return [tokenizer.decode([int(i)]) for i in ids]


def end_of_text(tokenizer: Any) -> int:
    """The token that stands between two texts.

    In Qwen's pre-training that is `<|endoftext|>`; the end-of-sequence token of its chat models
    ends a turn of a conversation. Other tokenizers give their end-of-sequence token.

    Raises `ValueError` for a tokenizer that has neither.
    """
    if END_OF_TEXT in tokenizer.get_vocab():
        return tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT} and no end-of-sequence token to put between texts"
        )
    return tokenizer.eos_token_id


def read_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Texts of files and folders, in the order of their names.

    `.jsonl` lines need a `text` field. Raises `ValueError` naming the file and line otherwise,
    for a suffix it does not know, and for a folder with nothing to read in it.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no text at {path}")
        files = [path] if path.is_file() else _files_under(path)
        for file in files:
            if file.suffix == ".jsonl":
                yield from _jsonl_texts(file)
            elif file.suffix in SUFFIXES:
                yield file.read_text(encoding="utf-8", errors="replace")
            else:
                raise ValueError(f"cannot read {file} as text: expected {', '.join(SUFFIXES)}")


def _files_under(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise ValueError(f"no text in {folder}: expected files ending in {', '.join(SUFFIXES)}")
    return files


def _jsonl_texts(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise ValueError(
                    f'{file}, line {number}: expected a JSON object with a "text" field, in UTF-8'
                )
            yield text


def token_blocks(
    texts: Iterable[str], tokenizer: Any, *, length: int
) -> Iterator[Int[Tensor, " pos"]]:
    """Pack texts end to end, the token of `end_of_text` after each, into blocks of `length`.

    The last, shorter block is dropped.
    """
    pending: list[int] = []
    separator = end_of_text(tokenizer)
    for text in texts:
        for start in range(0, len(text), CHARACTERS_AT_ONCE):
            pending += encode(tokenizer, text[start : start + CHARACTERS_AT_ONCE])
            while len(pending) >= length:
                yield torch.tensor(pending[:length])
                del pending[:length]
        pending.append(separator)
