"""Scorers by name."""

import pytest

from hooked_qwen.tokens import encode_prompt
from saes.scope.scorers import kind_of_scorer, unfitted
from saes.scope.text_scores import (
    by_script,
    repetition,
)
from tests.toys import toy_tokenizer


def test_scores_are_named_as_they_are():
    assert kind_of_scorer("regex:a:b") == ("regex", "a:b")
    for wrong in ("regex", "regex:", "probe:x", "length"):
        with pytest.raises(ValueError, match=r"there is no score .*expected regex:PATTERN"):
            kind_of_scorer(wrong)
    with pytest.raises(ValueError, match="no script is called 'runes': expected one of cjk"):
        by_script("runes")


def test_a_behaviour_is_a_score_of_a_texts_tokens():
    tokenizer = toy_tokenizer()
    scorer = unfitted("behaviour:repetition", tokenizer)
    assert scorer is not None
    texts = ["abcdeabcde", "abcdeabcdeabcde", "abcde", ""]
    expected = [repetition(encode_prompt(tokenizer, text)) for text in texts]
    assert scorer.of(texts).tolist() == expected
    assert expected[1] > expected[0] > 0
    assert scorer.said == "share of runs of four tokens that came before"
    with pytest.raises(ValueError, match="no behaviour is called 'politeness'"):
        unfitted("behaviour:politeness", tokenizer)
    assert unfitted("probe", tokenizer) is None
