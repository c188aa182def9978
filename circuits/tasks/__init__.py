"""Prompt sets of our own making, for the tokenizer at hand.

    make("ioi", 100, tokenizer, split="train")    100 pairs to look for a circuit on
    make("ioi", 100, tokenizer, split="test")     100 that share no content word with them

Words are kept only where the tokenizer has them as one token, so that answers are single tokens
and all prompts of a set have one length. Function words and sentence forms are shared.
"""

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from circuits.prompts import Prompt
from circuits.tasks import agreement, copying, people, python, recall
from circuits.tasks.choice import SPLITS, Choice, Split
from circuits.tasks.forms import Form, deal

__all__ = ["TASKS", "Split", "Task", "make"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prompt pair; `forms` gives its sentence forms over the words of one split."""

    name: str
    description: str
    source: str
    forms: Callable[[Choice], tuple[Form, ...]]


_AGREEMENT = "Linzen et al. 2016, arXiv:1611.01368; Marks et al. 2024, arXiv:2403.19647"
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="agreement_simple",
                description="a verb agrees with the noun before it: The old keys -> are",
                source=_AGREEMENT,
                forms=agreement.simple,
            ),
            Task(
                name="agreement_nounpp",
                description="agreement past a phrase: The key near the cabinets -> is",
                source=_AGREEMENT,
                forms=agreement.nounpp,
            ),
            Task(
                name="agreement_rc",
                description="agreement past a clause: The key that the farmers like -> is",
                source=_AGREEMENT,
                forms=agreement.across_clause,
            ),
            Task(
                name="agreement_within_rc",
                description="agreement in a clause: The key that the farmers -> like",
                source=_AGREEMENT,
                forms=agreement.within_clause,
            ),
            Task(
                name="ioi",
                description="the one who receives: When Mary and John went to the store, "
                "John gave the book to -> Mary",
                source="Wang et al. 2022, arXiv:2211.00593",
                forms=people.ioi,
            ),
            Task(
                name="greater_than",
                description="a later year: The war started in the year 1743, and ended in the "
                "year 17 -> 5, 6, 7, 8, 9",
                source="Hanna et al. 2023, arXiv:2305.00586",
                forms=recall.greater_than,
            ),
            Task(
                name="docstring",
                description="the next argument to document: def load(self, file, size, host, "
                "port) ... :param file: ... :param size: ... :param -> host",
                source="Heimersheim & Janiak 2023, A circuit for Python docstrings in a 4-layer "
                "attention-only transformer",
                forms=python.docstring,
            ),
            Task(
                name="brackets",
                description="the bracket to close in Python: [ left, ( top, right, ), last, -> ]",
                source="the language of Yao et al. 2021, arXiv:2105.11115",
                forms=python.brackets,
            ),
            Task(
                name="variable",
                description="the value of a name in Python: >>> left = 3 >>> top = 5 >>> left -> 3",
                source="Davies et al. 2023, arXiv:2307.03637; "
                "Feng & Steinhardt 2023, arXiv:2310.17191",
                forms=python.variable,
            ),
            Task(
                name="pronoun",
                description="the pronoun of a name: So Anna is such a good cook, isn't -> she",
                source="Mathwin & Corlouer 2023, Identifying a preliminary circuit for "
                "predicting gendered pronouns in GPT-2 small",
                forms=people.pronoun,
            ),
            Task(
                name="capital_of",
                description="a fact of the real world: The capital of France is -> Paris",
                source="Merullo et al. 2023, arXiv:2305.16130",
                forms=recall.capital_of,
            ),
            Task(
                name="induction",
                description="repeat what came before: river stone lamp cloud river stone -> lamp",
                source="Olsson et al. 2022, arXiv:2209.11895",
                forms=copying.induction,
            ),
        )
    }
)


def make(task: str, n: int, tokenizer: Any, *, split: Split, seed: int = 0) -> list[Prompt]:
    """`n` different pairs of a task, dealt evenly over its cases, from one half of the words.

    The same task, split, seed and tokenizer give the same pairs.

    Raises `ValueError` for an unknown task or split, and if fewer than `n` pairs exist, with
    the word lists of which the tokenizer knows only a part.
    """
    if task not in TASKS:
        raise ValueError(f"no task is called {task!r}: choose one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}: choose {' or '.join(SPLITS)}")
    if n < 1:
        raise ValueError(f"{n} pairs were asked for: ask for one or more")
    choice = Choice(tokenizer, split)
    rng = random.Random(zlib.crc32(f"{task} {split} {seed}".encode()))
    prompts = deal(TASKS[task].forms(choice), n, choice, rng)
    return [replace(p, where=f"{task}, {split} pair {i}") for i, p in enumerate(prompts, 1)]
