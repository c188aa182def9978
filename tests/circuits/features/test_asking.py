"""Questions in words, and what is read from the answers."""

import pytest
import torch

from circuits.features.asking import (
    Question,
    asked,
    by_words,
    explainer_prompt,
    judge_prompt,
    marked_text,
    phrase,
    verdicts,
)
from hooked_qwen.load import load_tokenizer
from saes.scope.held_out import Passage


def passage(tokens, marked):
    on = torch.zeros(len(tokens), dtype=torch.bool)
    on[list(marked)] = True
    return Passage(tuple(tokens), on.double(), on, 0)


class Bytes:
    """A tokenizer of single bytes."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")

    def convert_ids_to_tokens(self, token):
        return f"<0x{token:02X}>"


def test_marks_stand_around_neighbours_and_never_inside_a_character():
    tokenizer = load_tokenizer("bundled")
    ids = tokenizer("The boys sit.\nThe boy", add_special_tokens=False)["input_ids"]
    assert marked_text(passage(ids, [1, 2]), tokenizer, marks=True).startswith("The <<boys sit>>.⏎")
    assert "<<" not in marked_text(passage(ids, [1, 2]), tokenizer, marks=False)
    text = "a复数b"
    for byte in range(1, 4):
        said = marked_text(passage(text.encode(), [byte]), Bytes(), marks=True)
        assert said == "a<<复>>数b"


@pytest.mark.parametrize(
    ("text", "marked", "said"),
    [
        ("a  b", [1, 2, 3], "a  <<b>>"),
        ("a  b", [1, 2], "a<<  >>b"),
        ("a b c", [1, 2, 4], "a <<b>> <<c>>"),
        ("a<< b", [0], "<<a>><< b"),
        ("a\nb", [1], "a<<⏎>>b"),
        ("a\nb", [1, 2], "a⏎<<b>>"),
    ],
)
def test_marks_stand_at_words_and_the_text_stays_as_it_is(text, marked, said):
    assert marked_text(passage(text.encode(), marked), Bytes(), marks=True) == said


def test_a_character_that_a_context_cuts_is_left_out():
    cut = "复数".encode()[1:-1]
    assert marked_text(passage(cut, []), Bytes(), marks=False).strip("<0x>") is not None
    assert "\ufffd" not in marked_text(passage(cut, []), Bytes(), marks=False)


def test_questions_hold_all_passages_and_the_description():
    tokenizer = load_tokenizer("bundled")
    ids = tokenizer("The boys sit.", add_special_tokens=False)["input_ids"]
    assert "1. The <<boys>> sit." in explainer_prompt([passage(ids, [1])], tokenizer)
    for kind in ("detection", "fuzzing"):
        said = judge_prompt(Question(kind, ("one", "two"), "plural nouns"))
        assert "1. one\n2. two" in said
        assert "plural nouns" in said
        assert "list of 2 numbers" in said
        assert "(none)" in judge_prompt(Question(kind, ("one",), ""))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("The list is [1,0,1]. Passage 2 has none.", [True, False, True]),
        ("1 0 1", [True, False, True]),
        ("Yes\nNo\nyes", [True, False, True]),
        ("[1, 0]", [None] * 3),
        ("[1, 0, 1, 1]", [None] * 3),
        ("[x, x, x]", [None] * 3),
        ("passage 1 and passage 0", [None] * 3),
        ("", [None] * 3),
    ],
)
def test_verdicts_are_read_where_there_are_as_many_as_passages(answer, said):
    assert verdicts(answer, 3) == said
    assert asked(lambda _: answer)(Question("detection", ("a", "b", "c"), "")) == said


def test_a_description_is_the_first_line_that_says_something():
    assert phrase('\n "Plural nouns." \nBecause') == "Plural nouns."
    assert phrase("[EXPLANATION]: plural nouns") == "plural nouns"
    assert phrase("") == ""
    assert len(phrase("x" * 1000)) == 200


def test_words_of_a_description_are_looked_for_in_passages_and_marks():
    texts = ("The boys sit.", "A girl runs.", "Boyish things")
    assert by_words(Question("detection", texts, "boys, dogs… → are")) == [True, False, False]
    assert by_words(Question("detection", texts, "boy → are")) == [True, False, True]
    assert by_words(Question("detection", texts, "→ are")) == [False] * 3
    assert by_words(Question("detection", ("a 复数", "单数"), "复")) == [True, False]
    marked = ("The <<boys>> sit.", "The boys <<sit>>.", "no mark")
    assert by_words(Question("fuzzing", marked, "boys")) == [True, False, False]
