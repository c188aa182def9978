"""The verb agrees with its subject, whatever stands between."""

import pytest

from circuits.tasks import words
from tests.circuits.tasks.english import N, a_constant_answer_scores_chance, answers_are_right, made

NUMBER = {form: i for pair in (*words.THINGS, *words.PEOPLE, *words.VERBS)
          for i, form in enumerate(pair)} | {"is": 0, "are": 1}  # fmt: skip


def number_agrees(subject: int):
    return lambda text, answer: NUMBER[text.split()[subject]] == NUMBER[answer.strip()]


@pytest.mark.parametrize(
    ("task", "subject"),
    [
        ("agreement_simple", -1),
        ("agreement_nounpp", 1),
        ("agreement_rc", 1),
        ("agreement_within_rc", -1),
    ],
)
def test_the_verb_takes_the_number_of_its_subject(task, subject):
    answers_are_right(task, number_agrees(subject))


@pytest.mark.parametrize("task", ["agreement_simple", "agreement_nounpp", "agreement_rc"])
def test_a_constant_answer_scores_chance(task):
    a_constant_answer_scores_chance(task)


@pytest.mark.parametrize(("task", "between"), [("agreement_nounpp", -1), ("agreement_rc", 4)])
def test_the_noun_in_between_agrees_as_often_as_not(task, between):
    same = [
        NUMBER[p.clean.split()[between]] == NUMBER[p.answer[0].strip()] for p in made(task, "train")
    ]
    assert sum(same) == N / 2
