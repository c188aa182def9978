"""The next argument, the bracket that is open, the value of a name."""

import ast
import re

import pytest

from tests.circuits.tasks.english import a_constant_answer_scores_chance, answers_are_right, made


def is_next_argument(text: str, answer: str) -> bool:
    arguments = re.findall(r"\w+", text.splitlines()[0])[3:]
    return arguments[len(re.findall(r":param \w+:", text))] == answer.strip()


def closes(text: str, answer: str) -> bool:
    opened = []
    for mark in re.findall(r"[][(){}]", text):
        opened = [*opened, mark] if mark in "([{" else opened[:-1]
    return opened[-1] + answer in ("()", "[]", "{}")


def is_value(text: str, answer: str) -> bool:
    return dict(re.findall(r">>> (\w+) = (\d)", text))[text.split()[-1]] == answer


@pytest.mark.parametrize(
    ("task", "right"),
    [("docstring", is_next_argument), ("brackets", closes), ("variable", is_value)],
)
def test_the_answer_is_what_python_says(task, right):
    answers_are_right(task, right)


def test_a_constant_bracket_scores_chance():
    a_constant_answer_scores_chance("brackets")


def test_with_its_bracket_closed_a_list_is_python():
    for p in made("brackets", "train"):
        assert isinstance(ast.parse(p.clean + p.answer[0]).body[0], ast.Assign)
        with pytest.raises(SyntaxError):
            ast.parse(p.clean + p.wrong[0])
