"""The one who receives is named once; the pronoun is that of the name."""

import re
from collections import Counter

from circuits.tasks import names
from tests.circuits.tasks.english import a_constant_answer_scores_chance, answers_are_right, made


def is_named_once(text: str, answer: str) -> bool:
    said = Counter(re.findall(r"\w+", text))
    return [n for n in (*names.MEN, *names.WOMEN) if said[n] == 1] == [answer.strip()]


def is_pronoun_of_name(text: str, answer: str) -> bool:
    return (text.split()[1] in names.MEN) == (answer == " he")


def test_the_one_who_receives_is_named_once():
    answers_are_right("ioi", is_named_once)


def test_the_receiver_is_named_first_as_often_as_second():
    order = Counter(p.case.split(",")[0] for p in made("ioi", "train"))
    assert order["ABBA"] == order["BABA"]
    for p in made("ioi", "train"):
        said = re.findall("|".join((*names.MEN, *names.WOMEN)), p.clean)
        assert (p.answer[0].strip() == said[0]) == p.case.startswith("ABBA")


def test_the_pronoun_is_that_of_the_name():
    answers_are_right("pronoun", is_pronoun_of_name)


def test_a_constant_pronoun_scores_chance():
    a_constant_answer_scores_chance("pronoun")
