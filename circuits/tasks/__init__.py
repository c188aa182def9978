"""Prompt sets of our own making, in the language of the model at hand.

    make_for("bundled", "ioi", 100, split="train")    in the bundled model's own language
    make("ioi", 100, tokenizer, split="train")        in English: pairs to look for a circuit on
    make("ioi", 100, tokenizer, split="test")         pairs that share no content word with them

English words are kept only where the tokenizer has them as one token, so that answers are single
tokens and all prompts of a set have one length. Function words and sentence forms are shared.
"""

import random
import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from circuits.prompt_files import Prompt
from circuits.tasks import agreement, copying, people, python, recall
from circuits.tasks.choice import Choice
from circuits.tasks.dealing import deal
from hooked_qwen.bundled import language
from hooked_qwen.families import SPLITS, PromptPair, Split, Task, TooFewPairs
from hooked_qwen.load import load_tokenizer
from hooked_qwen.model_place import BUNDLED, local_folder

__all__ = [
    "TASKS",
    "Split",
    "Task",
    "as_many_as_exist",
    "list_for",
    "make",
    "make_for",
    "names_for",
]

_AGREEMENT = "Linzen et al. 2016, arXiv:1611.01368; Marks et al. 2024, arXiv:2403.19647"
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="agreement_simple",
                description="a verb agrees with the noun before it: The old keys -> are",
                source=_AGREEMENT,
                templates=agreement.simple,
            ),
            Task(
                name="agreement_nounpp",
                description="agreement past a phrase: The key near the cabinets -> is",
                source=_AGREEMENT,
                templates=agreement.nounpp,
            ),
            Task(
                name="agreement_rc",
                description="agreement past a clause: The key that the farmers like -> is",
                source=_AGREEMENT,
                templates=agreement.across_clause,
            ),
            Task(
                name="agreement_within_rc",
                description="agreement in a clause: The key that the farmers -> like",
                source=_AGREEMENT,
                templates=agreement.within_clause,
            ),
            Task(
                name="ioi",
                description="the one who receives: When Mary and John went to the store, "
                "John gave the book to -> Mary",
                source="Wang et al. 2022, arXiv:2211.00593",
                templates=people.ioi,
            ),
            Task(
                name="greater_than",
                description="a later year: The war started in the year 1743, and ended in the "
                "year 17 -> 5, 6, 7, 8, 9",
                source="Hanna et al. 2023, arXiv:2305.00586",
                templates=recall.greater_than,
            ),
            Task(
                name="docstring",
                description="the next argument to document: def load(self, file, size, host, "
                "port) ... :param file: ... :param size: ... :param -> host",
                source="Heimersheim & Janiak 2023, A circuit for Python docstrings in a 4-layer "
                "attention-only transformer",
                templates=python.docstring,
            ),
            Task(
                name="brackets",
                description="the bracket to close in Python: [ left, ( top, right, ), last, -> ]",
                source="the language of Yao et al. 2021, arXiv:2105.11115",
                templates=python.brackets,
            ),
            Task(
                name="variable",
                description="the value of a name in Python: >>> left = 3 >>> top = 5 >>> left -> 3",
                source="Davies et al. 2023, arXiv:2307.03637; "
                "Feng & Steinhardt 2023, arXiv:2310.17191",
                templates=python.variable,
            ),
            Task(
                name="pronoun",
                description="the pronoun of a name: So Anna is such a good cook, isn't -> she",
                source="Mathwin & Corlouer 2023, Identifying a preliminary circuit for "
                "predicting gendered pronouns in GPT-2 small",
                templates=people.pronoun,
            ),
            Task(
                name="capital_of",
                description="a fact of the real world: The capital of France is -> Paris",
                source="Merullo et al. 2023, arXiv:2305.16130",
                templates=recall.capital_of,
            ),
            Task(
                name="induction",
                description="repeat what came before: river stone lamp cloud river stone -> lamp",
                source="Olsson et al. 2022, arXiv:2209.11895",
                templates=copying.induction,
            ),
        )
    }
)


def make_for(model: str, task: str, n: int, *, split: Split, seed: int = 0) -> list[Prompt]:
    """`make` in the language that a model knows: the bundled model's own, else English."""
    if not _is_bundled(model):
        return make(task, n, load_tokenizer(model), split=split, seed=seed)
    return _prompts(language.pairs(task, n, split=split, seed=seed), f"{task}, {split}")


def as_many_as_exist(model: str, task: str, n: int, *, split: Split, seed: int = 0) -> list[Prompt]:
    """`make_for`, with as many pairs as there are where these are fewer than `n`."""
    while True:
        try:
            return make_for(model, task, n, split=split, seed=seed)
        except TooFewPairs as error:
            # Templates are counted by all of their pairs, fitting or not: there may be fewer yet.
            n = min(n - 1, error.exist)
            if n < 1:
                raise


def names_for(model: str) -> list[str]:
    """What the tasks in the language of a model are called."""
    return list(language.TASKS if _is_bundled(model) else TASKS)


def list_for(model: str) -> list[tuple[Task, Prompt | None]]:
    """Every task there is in the language of a model, with one example.

    The example is None where the tokenizer knows too few of the task's words as one token.
    """

    def example(task: str) -> Prompt | None:
        try:
            return make_for(model, task, 1, split="train")[0]
        except ValueError:
            return None

    known = language.TASKS if _is_bundled(model) else TASKS
    return [(task, example(name)) for name, task in known.items()]


def _is_bundled(model: str) -> bool:
    return local_folder(model) == local_folder(BUNDLED)


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
    return _prompts(deal(TASKS[task].templates(choice), n, choice, rng), f"{task}, {split}")


def _prompts(pairs: Iterable[PromptPair], of: str) -> list[Prompt]:
    return [
        Prompt(
            clean=pair.clean,
            patch=pair.patch,
            answer=pair.answer,
            wrong=pair.wrong,
            case=pair.case,
            where=f"{of} pair {i}",
        )
        for i, pair in enumerate(pairs, 1)
    ]
