"""What is asked about a feature, in words: what its passages have in common, and which fit.

Who explains sees passages with the tokens marked, << and >>, at which the feature is on. Who judges
sees a description and some passages, and says of each whether the feature is on in it (detection),
or whether what is marked is what the description says (fuzzing).

Passages come before the description, so that a model that keeps what it has read reads them once
for all descriptions.

Source: Paulo et al. 2024, arXiv:2410.13928. Differs: questions in our own words, and shorter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from circuits.features.answers import Answer
from hooked_qwen.tokens import REPLACEMENT, whole_characters
from saes.scope.held_out import Passage
from saes.scope.judgements import Verdict

QuestionKind = Literal["detection", "fuzzing"]
KINDS: tuple[QuestionKind, ...] = ("detection", "fuzzing")
LONGEST = 200
"Characters of a description, beyond which a model has not kept to a phrase."
EXPLAIN = """\
Below are passages of text in which one feature of a language model is active. The parts at which \
it is active stand between << and >>.

{passages}

What do the marked parts have in common? Answer with one short phrase and nothing else."""
JUDGE = {
    "detection": """\
A feature of a language model is active in some passages of text and not in others.

{passages}

Description of the feature: {description}

In which of the {n} passages is the feature active? Answer with a list of {n} numbers in square \
brackets, one for each passage in order, 1 for active and 0 for not active, and nothing else.""",
    "fuzzing": """\
A feature of a language model is active at some words of a text. In each passage some parts are \
marked with << and >>: in some passages rightly, in others by mistake.

{passages}

Description of the feature: {description}

In which of the {n} passages are the marked parts what the description says? Answer with a list of \
{n} numbers in square brackets, one for each passage in order, 1 for rightly marked and 0 for \
marked by mistake, and nothing else.""",
}
NOTHING = "(none)"
"How an empty description is written in a question."


@dataclass(frozen=True)
class Question:
    """Some passages to be judged by a description."""

    kind: QuestionKind
    texts: tuple[str, ...]
    "with marks where it is fuzzing"
    description: str


JudgeFunction = Callable[[Question], list[Verdict]]
"Says of each passage 1 or 0, or None."


def marked_text(passage: Passage, tokenizer: Any, *, marks: bool) -> str:
    """A passage on one line; neighbouring tokens that are marked stand in one pair of marks.

    Marks stand at words, as delphi shows them to who explains: the space that a token begins with
    is before them, unless a space is all that is marked.
    """
    runs = [
        (marks and bool(passage.marked[run.first : run.stop].any()), run.text)
        for run in whole_characters(tokenizer, passage.tokens)
    ]
    parts = []
    for marked, group in groupby(runs, key=itemgetter(0)):
        text = "".join(part for _, part in group)
        word = text.lstrip() or text
        space = text[: len(text) - len(word)]
        parts.append(f"{space}<<{word}>>" if marked else text)
    text = "".join(parts)
    return text.replace(REPLACEMENT, "").replace("\n", "⏎").strip()


def explainer_prompt(passages: Sequence[Passage], tokenizer: Any) -> str:
    """What is asked of who explains."""
    return EXPLAIN.format(
        passages=_numbered([marked_text(p, tokenizer, marks=True) for p in passages])
    )


def judge_prompt(question: Question) -> str:
    """What is asked of who judges."""
    return JUDGE[question.kind].format(
        passages=_numbered(question.texts),
        description=question.description or NOTHING,
        n=len(question.texts),
    )


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))


def phrase(answer: str) -> str:
    """The description in an answer: its first line that says something, without quotation marks."""
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    line = line.removeprefix("[EXPLANATION]:").strip().strip("\"“”'").strip()
    return line[:LONGEST].rstrip()


def asked(answer: Answer) -> JudgeFunction:
    """A judge that is a language model."""
    return lambda question: verdicts(answer(judge_prompt(question)), len(question.texts))


YES, NO = ("1", "yes", "true"), ("0", "no", "false")


def verdicts(answer: str, n: int) -> list[Verdict]:
    """The `n` verdicts in an answer; all None where it does not have as many.

    They stand in the first pair of square brackets, or are all that is said.
    """
    inside = re.search(r"\[([^\]]*)\]", answer)
    words = re.findall(r"[a-z]+|\d+", (inside[1] if inside else answer).casefold())
    said = [word in YES for word in words if word in YES + NO]
    return list(said) if len(said) == n == len(words) else [None] * n


WORD = re.compile(r"[^\W\u3000-\u9fff]+|[\u3000-\u9fff]")
MARKED = re.compile(r"<<(.*?)>>")
WHOLE = 3
"Letters from which on a piece of a word counts within others."


def by_words(question: Question) -> list[Verdict]:
    """A judge that needs no model: whether words of the description stand in a passage.

    Of a written rule's `fires on → promotes` the words before the arrow count. Marks are right
    where at least half of the marked parts have such a word.
    """
    words = {word.casefold() for word in WORD.findall(question.description.split("→")[0])}
    if question.kind == "detection":
        return [_holds(text, words) for text in question.texts]
    parts = [MARKED.findall(text) for text in question.texts]
    return [2 * sum(_holds(p, words) for p in found) >= max(1, len(found)) for found in parts]


def _holds(text: str, words: set[str]) -> bool:
    found = {word.casefold() for word in WORD.findall(text)}
    return bool(found & words) or any(
        len(word) >= WHOLE and any(word in other for other in found) for word in words
    )
