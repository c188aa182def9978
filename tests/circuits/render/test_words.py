"""What a picture says in words: labels, tokens, which way a number helps."""

import pytest

from circuits.graph import Node
from circuits.render.words import (
    NEUTRAL,
    OPPOSES,
    SUPPORTS,
    acts_on_target,
    answers_in_words,
    answers_named,
    caption,
    cells,
    edge_support,
    pair_name,
    readable,
    row_name,
    shortened,
    stance,
    support,
    token_name,
    tokens_named,
)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (" are", "are"),
        ("are", "are"),
        ("  are", "␣are"),
        (" ", "␣"),
        ("  ", "␣␣"),
        (" \n", "␣⏎"),
        ("a ", "a␣"),
        ("中文", "中文"),
        ("\u200b", "‹U+200B›"),
        ("\u00a0x", "‹U+00A0›x"),
    ],
)
def test_white_space_of_a_token_is_seen_but_for_the_space_that_begins_a_word(token, said):
    assert token_name(token) == said


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("“ are” 50%, “ is” 50% − wrong", "are, is"),
        ("“ are” − wrong", "are"),
        ("“ Christine” 7%, “ Adam” 3%, “ Andrew” 3% and 19 more − mean", "Christine, … 21 more"),
        ("", "answer"),
        ("resid_post.3 along v", "resid_post.3 along v"),
    ],
)
def test_outputs_of_earlier_graphs_are_called_by_their_tokens(label, said):
    assert caption(Node("logit", "answer"), {"label": label}) == said


@pytest.mark.parametrize(
    ("metric", "units", "helps", "edge"),
    [
        ("logit-difference", "logit-difference", 2.0, 2.0),
        ("kl", "kl", -2.0, -2.0),
        ("logit-difference", "pre-activation of the target", 2.0, -2.0),
    ],
)
def test_what_lowers_the_metric_when_it_goes_supports(metric, units, helps, edge):
    meta = {"metric": metric, "edge_units": units}
    assert support(-2.0, meta) == helps
    assert edge_support(-2.0, meta) == edge
    assert acts_on_target(meta) == ("target" in units)
    assert support(None, meta) is None


def test_a_number_without_a_sign_is_neutral():
    assert [stance(x) for x in (0.5, -0.5, 0.0, None)] == [SUPPORTS, OPPOSES, NEUTRAL, NEUTRAL]


@pytest.mark.parametrize("character", ["\n", "\t", "\x07", "\u202e", "\u200b", "\u2028", "\u00a0"])
def test_no_character_that_moves_or_breaks_a_line_is_left(character):
    assert character not in readable(f"a{character}b")
    assert readable("a 复 ab") == "a 复 ab"


@pytest.mark.parametrize(
    ("text", "room", "left"),
    [("abcdef", 6, "abcdef"), ("abcdef", 4, "abc…"), ("ab cdef", 4, "ab…"), ("中文字", 5, "中文…")],
)
def test_a_text_is_cut_to_its_cells(text, room, left):
    assert shortened(text, room) == left
    assert cells(shortened(text, room)) <= room


def test_cells_are_those_of_a_terminal():
    assert [cells(text) for text in ("abc", "中文", "e\u0301", "")] == [3, 4, 1, 0]


@pytest.mark.parametrize(
    ("node", "data", "said"),
    [
        (Node("mlp_out.1", 4), {}, "#4"),
        (Node("mlp_out.1", 4), {"label": "plural\nnouns"}, "plural⏎nouns"),
        (Node("mlp_out.1", "error"), {}, "error"),
        (Node("embed", "token", 2), {"token": " keys"}, " keys"),
        (Node("embed", "token", 2), {}, "token"),
        (Node("logit", " are"), {}, "are"),
    ],
)
def test_a_node_is_called_by_its_label_else_by_what_it_is(node, data, said):
    assert caption(node, data) == said


def test_as_many_answers_are_named_as_fit_and_one_at_least():
    pairs = [((f"word{i}",), (f"other{i}",)) for i in range(3)]
    assert answers_named(pairs[:1], 0) == "word0 − other0"
    assert answers_named(pairs, 0) == "word0 − other0, … 2 more"
    assert answers_named(pairs[:1], 1200) == "word0 − other0, … 1,200 more"
    assert answers_named([((" a",), ()), ((" a",), ())], 0) == "a"
    assert pair_name([" are", " were"], [" is"]) == "are/were − is"
    assert tokens_named(["a", "b", "c", "d"]) == "a/b/c/…"


def test_a_graph_says_which_tokens_its_metric_is_of():
    answers = {"of": "prompts", "tokens": [[" are", 0.5], [" were", 0.5]], "others": 3,
               "of_several_tokens": 0}  # fmt: skip
    meta = {"metric": "logit-difference", "answers": answers}
    assert answers_in_words(meta) == "“ are” 50%, “ were” 50% and 3 more"
    paired = answers | {"pairs": [[[" are"], [" is"], 1.0]], "other_pairs": 0}
    assert answers_in_words(meta | {"answers": paired}) == "“ are” − “ is”"
    own = answers | {"of": "model", "of_several_tokens": 1}
    told = answers_in_words(meta | {"answers": own})
    assert told.startswith("the model's own: “ are”")
    assert told.endswith("(of several tokens in 1 prompt: the first that differs)")
    assert answers_in_words(meta | {"metric": "kl"}) is None
    assert answers_in_words({}) is None


def test_rows_of_a_verification_that_are_no_graph_are_not_called_one():
    assert row_name("circuit") == "strongest nodes"
    assert row_name("random nodes") == "random nodes"
