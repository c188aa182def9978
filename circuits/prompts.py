"""Prompt sets in the tokens of one model: pairs that differ in one thing, with their answers.

Positions are counted from the left over tokens; prompts of different lengths are padded on the
left, so the last token of every prompt is in the last column.

An answer of several tokens is measured at the first token in which the right answers and the
wrong ones differ: what they share before it is appended to the prompt.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import takewhile, zip_longest
from typing import Any, Literal

import torch
from jinja2 import TemplateError

from circuits.prompt_files import Chat, Prompt, prompt_lines, read_prompts, write_prompts
from hooked_qwen.tokens import (
    Batch,
    Bos,
    encode,
    encode_prompt,
    has_chat_template,
    pad_left,
    start_of_text,
    token_strings,
)

__all__ = ["EncodedPrompts", "Positions", "Prompt", "Unfit", "encode_prompts", "prompt_lines",
           "read_prompts", "write_prompts"]  # fmt: skip

Positions = Literal["keep", "end", "sum"]
"Kept apart, for prompts of one length or of several whose last tokens share a column; or summed."
WhenUnfit = Literal["refuse", "skip"]
"Whether a prompt that does not fit the tokenizer is an error, or left out and counted."


class Unfit(ValueError):
    """A prompt that does not fit the tokenizer; `reason` says it in words for all of its kind."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class EncodedPrompts:
    """A checked prompt set in the tokens of one model."""

    prompts: tuple[Prompt, ...]
    clean: Batch
    patch: Batch | None
    answer_ids: tuple[tuple[int, ...], ...]
    wrong_ids: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...] | None
    "the token at each position, where these are kept apart"
    answer_weights: tuple[tuple[float, ...], ...] | None = None
    "what each answer counts for; None: the same"
    begins_with: tuple[str, ...] = ()
    "tokens put before every prompt, as the tokenizer does; the first positions are theirs"
    answer_texts: tuple[tuple[str, ...], ...] | None = None
    "the tokens of `answer_ids` as text; None: those of the prompts"
    own: frozenset[int] = frozenset()
    "numbers of the prompts without an answer, whose answers are the model's own"
    several_tokens: int = 0
    "prompts whose answers are of several tokens, measured at the first that differs"
    left_out: Mapping[str, int] = field(default_factory=dict)
    "prompts of the set that do not fit the tokenizer, by the reason"

    def __len__(self) -> int:
        return len(self.prompts)

    def tokens_hash(self) -> str:
        """16 hex digits that differ where a token of any prompt does: another tokenizer's do."""
        batches = [self.clean, *([] if self.patch is None else [self.patch])]
        rows = [r[m].tolist() for b in batches for r, m in zip(b.tokens, b.mask, strict=True)]
        return sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def n_positions(self, positions: Positions) -> int:
        """Positions told apart: 1 where they are summed."""
        return 1 if positions == "sum" else self.clean.tokens.shape[1]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the shortest and of the longest prompt."""
        counts = self.clean.mask.sum(1)
        return int(counts.min()), int(counts.max())


@dataclass(frozen=True)
class _Row:
    """One prompt in tokens."""

    prompt: Prompt
    clean: list[int]
    patch: list[int] | None
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    several: bool
    "whether an answer has several tokens"


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    *,
    positions: Positions,
    bos: Bos = "auto",
    unfit: WhenUnfit = "refuse",
    width: int | None = None,
) -> EncodedPrompts:
    """Check a prompt set against a tokenizer and put it in tokens, in `width` columns if given.

    Before each prompt stand the tokens that the tokenizer itself puts there, or what `bos` says.

    Raises `ValueError` naming the line when no single token tells right from wrong, a pair is
    not of one length, clean equals patch, a prompt is longer than `width`, or, with positions
    kept, prompts are of different lengths. With `unfit` these are left out and counted.
    """
    rows, left_out = _fitting(prompts, tokenizer, positions, bos, unfit, width)
    patches = [row.patch for row in rows if row.patch is not None]
    if 0 < len(patches) < len(rows):
        with_first = rows[0].patch is not None
        odd = next(row for row in rows if (row.patch is not None) != with_first)
        raise ValueError(f"{odd.prompt.where}: either every prompt has a patch or none has")
    pad = _pad(tokenizer)
    clean = [row.clean for row in rows]
    answers = tuple(row.right for row in rows)
    return EncodedPrompts(
        tuple(row.prompt for row in rows),
        _padded(clean, pad, width),
        _padded(patches, pad, width) if patches else None,
        answers,
        tuple(row.wrong for row in rows),
        None if positions == "sum" else _columns(clean, tokenizer, width),
        begins_with=tuple(token_strings(tokenizer, start_of_text(tokenizer, bos))),
        answer_texts=tuple(tuple(token_strings(tokenizer, ids)) for ids in answers),
        several_tokens=sum(row.several for row in rows),
        left_out=dict(left_out.most_common()),
    )


def _fitting(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    positions: Positions,
    bos: Bos,
    unfit: WhenUnfit,
    width: int | None,
) -> tuple[list[_Row], Counter[str]]:
    """The prompts that fit, and how many do not for which reason."""
    rows: list[_Row] = []
    left_out: Counter[str] = Counter()

    def kept(checks: Iterable[Any]) -> list[_Row]:
        found = []
        for check in checks:
            try:
                found.append(check())
            except Unfit as error:
                if unfit == "refuse":
                    raise
                left_out[error.reason] += 1
        return found

    rows = kept(lambda p=prompt: _row(p, tokenizer, bos) for prompt in prompts)
    if positions == "keep" and rows and width is None:
        common = Counter(len(row.clean) for row in rows).most_common(1)[0][0]
        rows = kept(lambda r=row: _of_length(r, common) for row in rows)
    if width is not None:
        least, most = (width if positions == "keep" else 1), width
        rows = kept(lambda r=row: _within(r, least, most) for row in rows)
    if not rows:
        raise ValueError(
            f"none of {len(prompts)} prompts fits the tokenizer: "
            + ", ".join(f"{n} {reason}" for reason, n in left_out.most_common())
        )
    return rows, left_out


def _row(prompt: Prompt, tokenizer: Any, bos: Bos) -> _Row:
    """One prompt in tokens; raises `Unfit`."""
    if prompt.unfit:
        raise Unfit(f"{prompt.where}: {prompt.unfit}; leave the line out", prompt.unfit)
    texts = prompt_texts(prompt, tokenizer)
    clean = encode_prompt(tokenizer, texts[0], bos)
    patch = None if texts[1] is None else encode_prompt(tokenizer, texts[1], bos)
    if patch is not None:
        _check_pair(prompt, clean, patch, tokenizer)
    shared, right, wrong, several = _answers(prompt, tokenizer)
    return _Row(
        prompt, clean + shared, None if patch is None else patch + shared, right, wrong, several
    )


def prompt_texts(prompt: Prompt, tokenizer: Any) -> tuple[str, str | None]:
    """Clean and patch as the model reads them: chat messages through its template."""
    if prompt.chat is None:
        return prompt.clean, prompt.patch
    clean, patch = prompt.chat
    return (
        _templated(clean, tokenizer, prompt.where),
        None if patch is None else _templated(patch, tokenizer, prompt.where),
    )


def _templated(chat: Chat, tokenizer: Any, where: str) -> str:
    """Messages as one text, at whose end the assistant speaks, or goes on with its message."""
    if not has_chat_template(tokenizer):
        raise ValueError(
            f"{where}: the prompt is chat messages, but the model's tokenizer has no chat "
            "template: take an instruct model, or write clean and patch as text"
        )
    messages = [{"role": role, "content": content} for role, content in chat]
    goes_on = chat[-1][0] == "assistant"
    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
    except (TemplateError, ValueError) as error:
        raise ValueError(f"{where}: the model's chat template refuses it ({error})") from None


def _pad(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def _padded(rows: Sequence[Sequence[int]], pad: int, width: int | None) -> Batch:
    """One batch, `width` columns wide, where that is more than the longest row has."""
    batch = pad_left(rows, pad)
    more = (width or 0) - batch.tokens.shape[1]
    if more <= 0:
        return batch
    widened = torch.nn.functional.pad
    return Batch(
        tokens=widened(batch.tokens, (more, 0), value=pad), mask=widened(batch.mask, (more, 0))
    )


def _check_pair(prompt: Prompt, clean: list[int], patch: list[int], tokenizer: Any) -> None:
    if len(clean) != len(patch):
        raise Unfit(
            f"{prompt.where}: clean has {len(clean)} tokens and patch {len(patch)}, but a pair "
            f"needs one length: {token_strings(tokenizer, clean)} against "
            f"{token_strings(tokenizer, patch)}",
            "clean and patch are not of one length",
        )
    if clean == patch:
        raise Unfit(
            f"{prompt.where}: clean and patch are the same prompt {prompt.clean!r}",
            "clean and patch are the same",
        )


def _of_length(row: _Row, common: int) -> _Row:
    if len(row.clean) != common:
        raise Unfit(
            f"{row.prompt.where}: {len(row.clean)} tokens where most prompts have {common}; "
            "positions can only be kept when all prompts have one length. Use --positions end, "
            "which lines up the last tokens, or sum, or leave this prompt out",
            "of another length than most, with positions kept",
        )
    return row


def _within(row: _Row, least: int, most: int) -> _Row:
    """The row, where it has as many tokens as those of the run whose positions it shares."""
    if not least <= (n := len(row.clean)) <= most:
        asked = f"{most}" if least == most else f"at most {most}"
        raise Unfit(
            f"{row.prompt.where}: {n} tokens, but the run's prompts have {asked} and positions "
            "are told apart; take prompts of that length, or discover with --positions sum",
            "of another length than the run's, with positions told apart",
        )
    return row


def _answers(
    prompt: Prompt, tokenizer: Any
) -> tuple[list[int], tuple[int, ...], tuple[int, ...], bool]:
    """What right and wrong answers share at their start, then the next token of each."""
    right, wrong = (
        [encode(tokenizer, a) for a in texts] for texts in (prompt.answer, prompt.wrong)
    )
    both = [*right, *wrong]
    if not all(both):
        raise ValueError(f"{prompt.where}: an answer has no tokens")
    several = any(len(ids) > 1 for ids in both)
    # Without a wrong answer the vocabulary is the other side: the first token differs from it.
    steps = takewhile(lambda ids: len(set(ids)) == 1, zip(*both, strict=False)) if wrong else ()
    shared = [ids[0] for ids in steps]
    firsts = [
        tuple(dict.fromkeys(ids[len(shared)] for ids in side if len(ids) > len(shared)))
        for side in (right, wrong)
    ]
    whole = min(map(len, both), default=1) == len(shared)
    if whole or set(firsts[0]) & set(firsts[1]):
        raise Unfit(
            f"{prompt.where}: no single token tells {_quoted(prompt.answer)} from "
            f"{_quoted(prompt.wrong)}: {[token_strings(tokenizer, ids) for ids in both]}",
            "no single token tells right from wrong answers",
        )
    return shared, firsts[0], firsts[1], several


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, texts))


def _columns(rows: Sequence[list[int]], tokenizer: Any, width: int | None) -> tuple[str, ...]:
    """The first prompt's token in each column, marked with … where other prompts differ.

    A page shows the first prompt above the columns. Where that is shorter, the next one counts.
    """
    labels = []
    for column in zip_longest(*(reversed(row) for row in rows)):
        first = next(token for token in column if token is not None)
        text = token_strings(tokenizer, [first])[0]
        labels.append(text if set(column) == {first} else f"{text}…")
    return ("",) * ((width or 0) - len(labels)) + tuple(reversed(labels))
