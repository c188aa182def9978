"""Prompt sets in English for a tokenizer that knows their words, and solvers that read the text."""

import string
from collections import Counter
from collections.abc import Callable
from functools import cache

from transformers import Qwen2Tokenizer

from circuits.tasks import make, names, words

Solver = Callable[[str, str], bool]
"Whether an answer is right after a text."
FUNCTION_WORDS = words.entries("""
    the that is are near behind beside by and to went came met sat at in gave handed brought passed
    he she such a good capital city of called knows ended started having year
""")
OPENERS = ["The", "When", "After", "Then", "While", "Everyone", "In", "'s"]
LISTS = [value for module in (words, names) for value in vars(module).values()]
CONTENT = [
    word
    for entries in LISTS
    if isinstance(entries, tuple)
    for entry in entries
    for word in ([entry] if isinstance(entry, str) else entry)
]
N = 24


def tokenizer_of(content: list[str]) -> Qwen2Tokenizer:
    """Qwen's own class, with a token for each of these words behind a space."""
    whole = [f"Ġ{word}" for word in [*FUNCTION_WORDS, *content] if word.isalpha()] + OPENERS
    merges = {(word[:i], word[i]): None for word in whole for i in range(1, len(word))}
    pieces = ["<|endoftext|>", "Ġ", "Ċ", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = dict.fromkeys([*pieces, *map("".join, merges)])
    return Qwen2Tokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=list(merges))


@cache
def full() -> Qwen2Tokenizer:
    return tokenizer_of(CONTENT)


@cache
def made(task: str, split: str):
    return make(task, N, full(), split=split)


def answers_are_right(task: str, right: Solver) -> None:
    """Every answer is right for clean, every wrong one for patch and not for clean."""
    for split in ("train", "test"):
        for p in made(task, split):
            assert all(right(p.clean, a) for a in p.answer)
            assert all(right(p.patch, w) for w in p.wrong)
            assert not any(right(p.clean, w) for w in p.wrong)


def a_constant_answer_scores_chance(task: str) -> None:
    prompts = made(task, "test")
    assert Counter(p.answer for p in prompts) == Counter(p.wrong for p in prompts)
