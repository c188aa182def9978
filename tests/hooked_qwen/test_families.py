"""Families of prompt pairs: a sentence with one blank, filled in two ways."""

import pytest

from hooked_qwen import families
from hooked_qwen.families import PromptPair, Template, fact, ioi, swap

KEY, FARMER, LIKE, IS = (
    ("key", "keys"),
    ("farmer", "farmers"),
    ("likes", "like"),
    ("is", "are"),
)
TEMPLATE = Template(
    case="x",
    pools=("ab", (1, 2, 3), "cde"),
    build=lambda *values: PromptPair(clean=str(values), patch="", answer=(), wrong=()),
)


def test_combinations_count_like_the_digits_of_a_number():
    assert len(TEMPLATE) == 18
    every = [TEMPLATE.values(i) for i in range(len(TEMPLATE))]
    assert every[:4] == [("a", 1, "c"), ("a", 1, "d"), ("a", 1, "e"), ("a", 2, "c")]
    assert len(set(every)) == 18
    assert every == sorted(every)


def test_a_pair_says_its_case():
    assert TEMPLATE.pair(5) == TEMPLATE.pair_of(TEMPLATE.values(5))
    assert TEMPLATE.pair(5).case == "x"


def test_the_first_blank_is_clean_the_second_patch():
    pair = swap("The {} is".format, ("sky", "sea"), (" blue", " deep"))
    assert (pair.clean, pair.patch) == ("The sky is", "The sea is")
    assert (pair.answer, pair.wrong) == ((" blue",), (" deep",))


SENTENCES = {
    "The old {} {}": lambda n: families.simple(KEY, IS, n, "old"),
    "The {} {}": lambda n: families.simple(KEY, IS, n),
    "The {} near the farmers {}": lambda n: families.nounpp(KEY, IS, n, "near", "farmers"),
    "The {} that the farmer likes {}": lambda n: families.across_clause(
        KEY, IS, n, "farmer", "likes"
    ),
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_verb_takes_the_number_of_the_noun_that_is_swapped(sentence, number):
    pair = SENTENCES[sentence](number)
    assert pair.clean + pair.answer[0] == sentence.format(KEY[number], IS[number])
    assert pair.patch + pair.wrong[0] == sentence.format(KEY[1 - number], IS[1 - number])


@pytest.mark.parametrize("number", [0, 1])
def test_within_a_clause_the_verb_takes_the_clause_s_subject(number):
    pair = families.within_clause("key", FARMER, LIKE, number)
    assert pair.clean + pair.answer[0] == f"The key that the {FARMER[number]} {LIKE[number]}"
    assert pair.patch + pair.wrong[0] == f"The key that the {FARMER[1 - number]} {LIKE[1 - number]}"


@pytest.mark.parametrize("receiver", [0, 1])
def test_the_name_that_is_not_said_again_receives(receiver):
    names = ("Mary", "John")
    pair = ioi("{} and {} met; {again} gave a ring to", names, receiver)
    assert pair.clean == f"Mary and John met; {names[1 - receiver]} gave a ring to"
    assert pair.answer == (f" {names[receiver]}",)
    assert pair.patch == f"Mary and John met; {names[receiver]} gave a ring to"
    assert pair.wrong == (f" {names[1 - receiver]}",)


def test_a_question_about_one_thing_is_patched_with_another():
    pair = fact("The capital of {} is", (("France", "Paris"), ("Italy", "Rome")))
    assert pair.patch + pair.wrong[0] == "The capital of Italy is Rome"
    assert pair.clean + pair.answer[0] == "The capital of France is Paris"
