"""Text to tokens and back: left-padded prompt batches, packed blocks of running text.

Some tokenizers put a token before every text, such as `<bos>`; the models that they belong to
were trained so. Prompts and texts get what the tokenizer itself would add, answers do not.

Axes: `batch` prompts, `pos` token positions counted from the left, padding included.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

END_OF_TEXT = "<|endoftext|>"
# Tokenizers are fastest, and memory stays flat, on pieces of this size.
CHARACTERS_AT_ONCE = 1 << 16
Bos = Literal["auto", "always", "never"]
"What stands before a text: what the tokenizer adds, its beginning-of-sequence token, nothing."
REPLACEMENT = "\ufffd"
BYTE = re.compile("<0x[0-9A-F]{2}>")


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

    def trimmed(self) -> "Batch":
        """Without the columns that are padding of every row."""
        first = int(self.mask.any(0).int().argmax())
        return Batch(tokens=self.tokens[:, first:], mask=self.mask[:, first:])

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(tokens=self.tokens.to(device), mask=self.mask.to(device))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` with nothing added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def start_of_text(tokenizer: Any, bos: Bos = "auto") -> list[int]:
    """The tokens that stand before every text: for most Qwen models none.

    Raises `ValueError` where one is always to be there and the tokenizer has none.
    """
    if bos == "never":
        return []
    whole, body = tokenizer("a")["input_ids"], encode(tokenizer, "a")
    added = next(i for i in range(len(whole) + 1) if whole[i : i + len(body)] == body)
    if added or bos == "auto":
        return whole[:added]
    if tokenizer.bos_token_id is None:
        raise ValueError("the tokenizer has no beginning-of-sequence token to put before prompts")
    return [tokenizer.bos_token_id]


def encode_prompt(tokenizer: Any, text: str, bos: Bos = "auto") -> list[int]:
    """Token ids of a text that begins there, behind `start_of_text`; never twice behind it."""
    start, tokens = start_of_text(tokenizer, bos), encode(tokenizer, text)
    return tokens if tokens[: len(start)] == start else [*start, *tokens]


def has_chat_template(tokenizer: Any) -> bool:
    """Whether a tokenizer says how turns of a conversation are written."""
    return bool(getattr(tokenizer, "chat_template", None))


def encode_request(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a user's turn through the chat template, at whose end the assistant speaks.

    Raises `ValueError` for a tokenizer that has none.
    """
    if not has_chat_template(tokenizer):
        raise ValueError(
            "the model's tokenizer has no chat template to put a request through: take an "
            "instruct model, or prompts as plain text"
        )
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return encode(tokenizer, written)


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """One batch of token rows of any lengths; raises `ValueError` on an empty prompt."""
    if not rows or not all(rows):
        raise ValueError("a prompt has no tokens: every prompt needs at least one")
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width)[None, :] >= width - lengths[:, None]
    return Batch(tokens=tokens, mask=mask)


def by_length(
    rows: Sequence[Sequence[int]], at_once: int
) -> Iterator[tuple[list[int], Int[Tensor, "batch pos"]]]:
    """Batches of rows with as many tokens, which need no padding, each with its rows' numbers."""
    places = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for _, group in groupby(places, key=lambda i: len(rows[i])):
        same = list(group)
        for start in range(0, len(same), at_once):
            index = same[start : start + at_once]
            yield index, torch.tensor([list(rows[i]) for i in index])


def token_strings(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    """Each token as the text it stands for, its leading space kept.

    Bytes that are no whole character are written `<0xF0>`, numbers that the tokenizer does not
    know `<id 151700>`.
    """
    return [_token_string(tokenizer, int(i)) for i in ids]


def _token_string(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token])
    if text and REPLACEMENT not in text:
        return text
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return f"<id {token}>"
    if BYTE.fullmatch(piece):
        return piece
    bytes_of = _bytes_of_characters()
    if all(character in bytes_of for character in piece):
        return _readable(bytes(bytes_of[c] for c in piece))
    return text


@dataclass(frozen=True)
class TokenSpan:
    """Neighbouring tokens that make whole characters together: mostly one."""

    text: str
    first: int
    "place of its first token"
    stop: int
    "place behind its last one"


LONGEST_RUN = 8
"Tokens in which a character ends: UTF-8 has four bytes at most, and a token holds one or more."


def whole_characters(tokenizer: Any, ids: Sequence[int]) -> list[TokenSpan]:
    """The tokens of a text in the shortest runs that no character crosses the end of.

    Where vocabularies are of bytes, one Chinese character can be several tokens, none of which
    says anything alone. Bytes that are never completed stand alone, as in `token_strings`.
    """
    runs, at = [], 0
    while at < len(ids):
        run = TokenSpan(_token_string(tokenizer, int(ids[at])), at, at + 1)
        for stop in range(at + 1, min(len(ids), at + LONGEST_RUN) + 1):
            text = tokenizer.decode([int(i) for i in ids[at:stop]])
            if text and REPLACEMENT not in text:
                run = TokenSpan(text, at, stop)
                break
        runs.append(run)
        at = run.stop
    return runs


@cache
def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Source: GPT-2's `bytes_to_unicode`: visible Latin-1 characters are themselves, the other
    bytes follow from U+0100 on in their order.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


def _readable(content: bytes) -> str:
    """Whole characters as they are, bytes that are part of one as `<0xF0>`."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before, after = content[: error.start], content[error.end :]
        between = "".join(f"<0x{byte:02X}>" for byte in content[error.start : error.end])
        return before.decode("utf-8") + between + _readable(after)


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


def token_blocks(
    texts: Iterable[str], tokenizer: Any, *, length: int
) -> Iterator[Int[Tensor, " pos"]]:
    """Pack texts end to end into blocks of `length`; the last, shorter block is dropped.

    Before each text stands what the tokenizer puts there, after it the token of `end_of_text`.
    """
    pending: list[int] = []
    start_of_each, separator = start_of_text(tokenizer), end_of_text(tokenizer)
    for text in texts:
        pending += start_of_each
        for start in range(0, len(text), CHARACTERS_AT_ONCE):
            pending += encode(tokenizer, text[start : start + CHARACTERS_AT_ONCE])
            while len(pending) >= length:
                yield torch.tensor(pending[:length])
                del pending[:length]
        pending.append(separator)


def first_blocks(
    texts: Iterable[str], tokenizer: Any, *, tokens: int, length: int
) -> Int[Tensor, "blocks pos"]:
    """The first `tokens` tokens of texts in whole blocks; `ValueError` where there is not one."""
    blocks = list(islice(token_blocks(texts, tokenizer, length=length), tokens // length))
    if not blocks:
        raise ValueError(f"the text is shorter than one block of {length} tokens")
    return torch.stack(blocks)
