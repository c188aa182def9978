"""Texts of `tune` and `reinforce` as tokens: to train on, held out, and prompts to write after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.runs.trained import LEAST, TrainedConfig
from hooked_qwen.texts import texts_of
from hooked_qwen.tokens import encode_prompt

MOST_PROMPTS = 64
HELD_OUT = 10
"One text in so many is held out where no others are given."


@dataclass(frozen=True, kw_only=True)
class Material:
    """Tokens of the texts to train on and of those held out, and the prompts to write after."""

    train: list[list[int]]
    clean: Mapping[str, list[list[int]]]
    prompts: tuple[str, ...]


def material(
    tokenizer: Any,
    text: Sequence[str],
    held_out: Sequence[str],
    prompts: Sequence[str],
    config: TrainedConfig,
) -> Material:
    """Read from sources as `--text` takes them.

    Raises `ValueError` where there is no text to train on or to hold out, and for one that is both.
    """
    if both := sorted(set(map(str, text)) & set(map(str, held_out))):
        raise ValueError(
            f"{both[0]} is to be trained on and held out: give other texts to judge on"
        )
    train, clean = rows_of(tokenizer, text, config), clean_rows(tokenizer, held_out, config)
    if not clean:
        train, clean = _apart(train)
    return Material(train=train, clean=clean, prompts=prompts_of(tokenizer, prompts))


def clean_rows(
    tokenizer: Any, sources: Sequence[str], config: TrainedConfig
) -> dict[str, list[list[int]]]:
    """Texts to judge on, by the names of their sources."""
    return {Path(source).name: rows_of(tokenizer, [source], config) for source in sources}


def prompts_of(tokenizer: Any, sources: Sequence[str]) -> tuple[str, ...]:
    """The first prompts of some sources, those without a token left out."""
    found = []
    for text in texts_of(sources)():
        if encode_prompt(tokenizer, text.rstrip("\n")):
            found.append(text.rstrip("\n"))
        if len(found) == MOST_PROMPTS:
            break
    return tuple(found)


def rows_of(
    tokenizer: Any, sources: Sequence[str | Path], config: TrainedConfig
) -> list[list[int]]:
    """Texts of tokens, the long ones in several pieces.

    Raises `ValueError` where no text is long enough.
    """
    rows: list[list[int]] = []
    for text in texts_of(sources)():
        tokens = encode_prompt(tokenizer, text)
        pieces = (tokens[i : i + config.longest] for i in range(0, len(tokens), config.longest))
        rows += [piece for piece in pieces if len(piece) >= LEAST]
        if len(rows) >= config.texts:
            break
    if not rows:
        raise ValueError(f"no text of {', '.join(map(str, sources))} has {LEAST} tokens")
    return rows[: config.texts]


def _apart(rows: list[list[int]]) -> tuple[list[list[int]], dict[str, list[list[int]]]]:
    if len(rows) < 2:
        raise ValueError("there is one text only, to train on or to hold out: give more of them")
    held = rows[::HELD_OUT]
    return [row for i, row in enumerate(rows) if i % HELD_OUT], {"held out": held}
