"""Texts that are asked for: prompts that show examples, and who writes.

    by_model(model, config)    the model itself, many prompts at once, with a cache
    each_by(answer)            any function from a prompt to a text, or to several

A prompt is an instruction, for models that take them, or examples to be continued.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.continuations import GenerateConfig, generate
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.placement import device_of
from hooked_qwen.progress import Report, counting, silent
from hooked_qwen.tokens import (
    encode_prompt,
    encode_request,
    end_of_text,
    has_chat_template,
    pad_left,
)

RequestStyle = Literal["instruction", "continuation"]
TextGenerator = Callable[[str], str | Sequence[str]]
"One prompt to a text, or to several."
Writer = Callable[[Sequence[str], int], list[list[str]]]
"Prompts and a seed to the texts of each."
PROMPTS_AT_ONCE = 16
SENTENCE = re.compile(r".*(?:[.!?](?=\s|$)|[。!?])", re.DOTALL)
"Up to the last end of a sentence."


@dataclass(frozen=True, kw_only=True)
class WritingConfig:
    """How texts are written."""

    style: RequestStyle = "instruction"
    tokens: int = 80
    "of a text, at most"
    temperature: float = 1.0
    separator: str = "\n\n"
    "between examples to be continued"

    def __post_init__(self) -> None:
        check_at_least(1, self, "tokens")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: expected 0 or more")
        if not self.separator.isspace():
            raise ValueError(f"separator is {self.separator!r}: expected blanks or line ends")


def default_style(tokenizer: Any) -> RequestStyle:
    """Instructions for a tokenizer with a chat template."""
    return "instruction" if has_chat_template(tokenizer) else "continuation"


def asking(shown: Sequence[str], config: WritingConfig, *, common: str = "") -> str:
    """A prompt for one more text like those that are shown; `common` says what they share."""
    if config.style == "continuation":
        # Most tokens begin with the blank before their word.
        return config.separator.join(shown) + config.separator.rstrip(" ")
    listed = "\n".join(f"{i}. {' '.join(text.split())}" for i, text in enumerate(shown, 1))
    hint = f"\n\nThey have to do with: {common}" if common else ""
    return (
        f"Texts of one kind:\n\n{listed}{hint}\n\nWrite one more text of this kind, about as long "
        "as these and about something else. Answer with the text alone."
    )


def cleaned(written: str, config: WritingConfig) -> str:
    """A text without what follows it, and without a sentence that was cut off."""
    if config.style == "continuation" and "\n" in config.separator:
        written = written.strip().split(config.separator)[0]
    text = " ".join(written.split())
    whole = SENTENCE.match(text)
    return whole.group() if whole else text


def each_by(answer: TextGenerator, *, report: Report = silent) -> Writer:
    """Who answers one prompt at a time; the seed is not told."""

    def write(prompts: Sequence[str], seed: int) -> list[list[str]]:
        found, tick = [], _writing(report, prompts)
        for prompt in prompts:
            said = answer(prompt)
            found.append([said] if isinstance(said, str) else list(said))
            tick(1)
        return found

    return write


def by_model(model: TransformerBridge, config: WritingConfig, *, report: Report = silent) -> Writer:
    """The model itself, sampling with a cache, prompts of like length at once."""

    def write(prompts: Sequence[str], seed: int) -> list[list[str]]:
        rows = [_tokens(model.tokenizer, prompt, config.style) for prompt in prompts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found: list[list[str]] = [[] for _ in rows]
        tick = _writing(report, prompts)
        for start in range(0, len(order), PROMPTS_AT_ONCE):
            some = order[start : start + PROMPTS_AT_ONCE]
            batch = pad_left([rows[i] for i in some], end_of_text(model.tokenizer))
            settings = GenerateConfig(
                tokens=config.tokens, temperature=config.temperature, seed=seed + start
            )
            written = generate(model, batch.to(device_of(model)), settings).tolist()
            for i, tokens in zip(some, written, strict=True):
                found[i] = [model.tokenizer.decode(tokens, skip_special_tokens=True)]
            tick(len(some))
        return found

    return write


def _writing(report: Report, prompts: Sequence[str]) -> Callable[[int], None]:
    """Told of from before the first text is there: one of a large model takes long."""
    tick = counting(report, "writing", len(prompts))
    tick(0)
    return tick


def _tokens(tokenizer: Any, prompt: str, style: RequestStyle) -> list[int]:
    """An instruction through the chat template, where there is one."""
    if style == "continuation" or not has_chat_template(tokenizer):
        return encode_prompt(tokenizer, prompt)
    return encode_request(tokenizer, prompt)
