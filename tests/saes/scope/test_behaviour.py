"""Behaviours of a text's pieces, by their definitions."""

import pytest

from hooked_qwen.load import load_tokenizer
from saes.scope.behaviour import behaviour_called, cjk, pieces_of


def test_cjk_is_the_share_of_pieces_with_such_a_character():
    assert cjk(["the", " 好", "，", "かな", "한", " end"]) == pytest.approx(4 / 6)
    assert cjk(["naïve", "…", "Ω", "🙂"]) == 0
    assert cjk([]) == 0


def test_a_character_of_several_tokens_is_one_piece():
    tokenizer = load_tokenizer("bundled")
    tokens = tokenizer("a 好 b", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 6
    assert pieces_of(tokenizer, [*tokens, tokenizer.eos_token_id]) == ["a", " ", "好", " b"]
    assert cjk(pieces_of(tokenizer, tokens)) == 1 / 4
    assert len(pieces_of(tokenizer, tokens[:4])) == 3


def test_a_pattern_is_looked_for_in_the_whole_text():
    dogs = behaviour_called("regex:dog(s|gy)")
    assert dogs(["The ", "do", "gs", " sit"]) == 1
    assert dogs(["The ", "do", "g"]) == 0
    assert dogs([]) == 0
    with pytest.raises(ValueError, match="no regular expression"):
        behaviour_called("regex:(")


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="no behaviour is called 'rude': expected one of cjk"):
        behaviour_called("rude")
