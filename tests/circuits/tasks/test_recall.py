"""Years beyond one that is said, and capitals of the real world."""

import re

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuits.prompts import encode_prompts
from circuits.tasks import make, words
from tests.circuits.tasks.english import N, answers_are_right, made, tokenizer_of


def is_beyond(text: str, answer: str) -> bool:
    year, century = map(int, re.findall(r"\d+", text))
    ends = [int(f"{century}{answer}{unit}"[:4]) for unit in range(10)]
    first_is_end = "ended in the year" in text.split(",")[0]
    return max(ends) < year if first_is_end else min(ends) > year


def is_capital(text: str, answer: str) -> bool:
    said = re.findall(r"\w+", text)
    return [city for country, city in words.CAPITALS if country in said] == [answer.strip()]


def test_every_ending_is_a_year_beyond_the_one_that_is_said():
    answers_are_right("greater_than", is_beyond)


def test_the_capital_is_the_country_s():
    answers_are_right("capital_of", is_capital)


def test_a_liking_for_late_years_scores_chance():
    prompts = made("greater_than", "train")
    assert sum(p.answer > p.wrong for p in prompts) == N / 2


def tokenizer_with_years(digits: str) -> PreTrainedTokenizerFast:
    """Every word a token, and of a number what `digits` matches."""
    numbers = [f"{i:02}" for i in range(100)]
    vocabulary = {token: i for i, token in enumerate(["<unk>", *numbers])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pattern = Regex(rf" ?[A-Za-z]+|{digits}| |[^ ]")
    raw.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", pad_token="<unk>")


def test_a_tokenizer_that_takes_years_whole_is_told_so():
    with pytest.raises(ValueError, match="only 0: no answer is one token .*; ask for another task"):
        make("greater_than", 6, tokenizer_with_years(r"\d+"), split="train")


def test_years_are_asked_for_in_two_digits_where_those_are_one_token():
    tokenizer = tokenizer_with_years(r"\d\d")
    prompts = make("greater_than", 6, tokenizer, split="train")
    encode_prompts(prompts, tokenizer, positions="keep")
    for p in prompts:
        assert {len(text) for text in (*p.answer, *p.wrong)} == {2}
        assert all(is_beyond(p.clean, a) for a in p.answer)
        assert all(is_beyond(p.patch, w) for w in p.wrong)


def test_as_many_pairs_can_be_had_as_the_message_says():
    places = [place for pair in words.CAPITALS[1:9:2] for place in pair]
    tokenizer = tokenizer_of(places)
    with pytest.raises(ValueError, match="40 pairs were asked for but the test split has only 36"):
        make("capital_of", 40, tokenizer, split="test")
    assert len({(p.clean, p.patch) for p in make("capital_of", 36, tokenizer, split="test")}) == 36
