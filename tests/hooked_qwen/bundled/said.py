"""Prompt pairs and documents of the bundled language as bare words."""

import re
from collections.abc import Iterable

from hooked_qwen.families import PromptPair


def bare(text: str) -> str:
    return re.sub(r"[\s.,:;!?]+", " ", text).strip()


def strings(pair: PromptPair) -> tuple[str, ...]:
    return pair.clean, pair.patch, *pair.answer, *pair.wrong


def vocabulary(some: Iterable[PromptPair]) -> set[str]:
    return {word for pair in some for text in strings(pair) for word in bare(text).split()}
