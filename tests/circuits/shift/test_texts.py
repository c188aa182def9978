"""The sets of texts: groups, no text twice, the same texts for the same seed, what is refused."""

import re
from collections import Counter
from itertools import product

import pytest

from circuits.shift.generate import pieces
from circuits.shift.texts import ShiftData, only_words, shift_data
from hooked_qwen.load import BUNDLED, load_tokenizer
from hooked_qwen.tokens import encode_prompt

SETS = ("ambiguous", "balanced", "balanced_train", "spurious_only")
ENGLISH = "Qwen/Qwen3-0.6B"


@pytest.fixture(
    scope="module", params=[*product(("biographies", "registers"), (BUNDLED, ENGLISH))], ids=str
)
def data(request: pytest.FixtureRequest) -> ShiftData:
    name, model = request.param
    return shift_data(name, model=model)


def groups(data: ShiftData, part: str) -> Counter[tuple[int, int]]:
    return Counter((x.label, x.spurious) for x in getattr(data, part))


def test_groups_are_of_one_size(data: ShiftData):
    crossed = dict.fromkeys(product(range(2), repeat=2), 100)
    assert groups(data, "ambiguous") == {(0, 0): 200, (1, 1): 200}
    assert groups(data, "balanced") == groups(data, "balanced_train") == crossed
    assert groups(data, "spurious_only") == {(0, 0): 200, (0, 1): 200}


def test_no_text_is_in_two_sets_or_twice_in_one(data: ShiftData):
    texts = [x.text for part in SETS for x in getattr(data, part)]
    assert len(set(texts)) == len(texts) == 1600


def test_texts_are_plain_sentences_of_25_to_45_words_and_marks(data: ShiftData):
    for text in (x.text for part in SETS for x in getattr(data, part)):
        assert 25 <= pieces(text) <= 45, text
        assert re.fullmatch(r"[A-Z](?:[\w' ]|[,.!](?: |$)|-ray)+", text), text


def test_a_cue_shows_in_a_part_of_the_texts_and_some_cue_in_nearly_all(data: ShiftData):
    texts = [x.text for x in data.balanced]
    for kind, words in zip(data.cues, data.words, strict=True):
        share = sum(bool(only_words(text, words)) for text in texts) / len(texts)
        assert 0.15 < share < 0.95, kind
    every = tuple(word for words in data.words for word in words)
    assert sum(bool(only_words(text, every)) for text in texts) > 0.98 * len(texts)


@pytest.mark.parametrize("name", ["biographies", "registers"])
def test_the_bundled_model_knows_every_word_as_one_token(name):
    tokenizer = load_tokenizer(BUNDLED)
    for x in shift_data(name, n=200).spurious_only + shift_data(name, n=200).balanced:
        assert len(encode_prompt(tokenizer, x.text)) == pieces(x.text), x.text


@pytest.mark.parametrize("model", [BUNDLED, ENGLISH])
def test_the_texts_to_test_on_share_no_first_name_with_any_other(model):
    data = shift_data("biographies", model=model)

    def names(part: str) -> set[str]:
        return {name for x in getattr(data, part) for name in only_words(x.text, names_of).split()}

    names_of = data.words[data.cues.index("names")]
    assert len(names("balanced")) > 20
    for part in SETS:
        assert part == "balanced" or not names(part) & names("balanced")


def test_the_same_seed_gives_the_same_texts_and_another_others():
    first, again, other = (shift_data("biographies", n=8, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert not {x.text for x in first.balanced} & {x.text for x in other.balanced}


def test_any_two_professions_or_topics_are_told_apart():
    data = shift_data("biographies", classes=("pilot", "judge"), n=8)
    assert data.labels == ("pilot", "judge")
    nurses = " ".join(
        x.text for x in shift_data("biographies", classes=("pilot", "judge")).spurious_only
    )
    assert "hospital" in nurses
    topics = shift_data("registers", classes=("music", "money"), n=8, model=ENGLISH)
    assert topics.labels == ("music", "money")


def test_the_bundled_model_gets_another_pair_than_formality_and_is_told():
    data = shift_data("registers", n=8)
    assert (data.label, data.spurious) == ("profession", "region")
    assert "formality" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "biography"}, "no texts at biography.*biographies or registers"),
        ({"n": 10}, "10 texts cannot be four groups of one size: give a multiple of 4"),
        ({"classes": ("nurse", "dentist")}, "write two of the professions nurse, teacher,"),
        ({"classes": ("nurse", "nurse")}, "cannot tell apart 'nurse', 'nurse'"),
        ({"classes": ("nurse",)}, "cannot tell apart 'nurse': write two"),
        ({"label": "topic"}, "biographies have no label 'topic', but profession"),
        ({"spurious": "age"}, "biographies have no spurious 'age', but gender"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        shift_data(**{"name_or_path": "biographies", **arguments})
