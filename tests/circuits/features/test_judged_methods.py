"""Every way to tell texts apart, learned from all and from few, judged on the rest."""

import pytest
import torch

from circuits.features.judged_methods import METHODS, learned, read_texts, shares, tables
from saes.scope.classify import SIZES, TextSplit, parts_of
from tests.toys import speaking_toy, toy_suite

POSITIVE = torch.arange(24) % 2 == 0
TEXTS = [
    f"{'abc' if i % 2 == 0 else 'XYZ'} {'de'[i % 3 == 0]}{'fghijklm'[i // 3]}" for i in range(24)
]


@pytest.fixture(scope="module")
def found():
    model, suite = speaking_toy(dtype=torch.float32), toy_suite("resid_post.0", dtype=torch.float32)
    read, parts = read_texts(model, suite, TEXTS), parts_of(POSITIVE)
    return read, parts, tables(read, POSITIVE, parts, draws=2)


def test_texts_are_read_once_for_features_controls_and_every_layer(found):
    read, *_ = found
    assert len(read.activity) == len(read.control) == len(TEXTS)
    assert read.activity.widths == read.control.widths
    assert {len(x) for x in read.means.values()} == {len(TEXTS)}
    assert [site.layer for site in read.means] == [0, 1, 2]


def test_every_method_stands_in_every_table(found):
    _, parts, made = found
    assert [method.name for method in made.methods] == list(METHODS)
    most = learned(POSITIVE, parts)
    assert list(made.by_texts) == sorted(made.by_texts)
    assert max(made.by_texts) < most
    assert {len(draws) for some in made.by_texts.values() for draws in some} == {2}
    assert list(made.by_features) == list(SIZES)
    for some in made.by_features.values():
        assert [method.name for method in some] == list(METHODS[:2])


def test_what_differs_between_draws_is_a_list_and_words_tell_these_texts_apart(found):
    _, parts, made = found
    record = made.judged_on(POSITIVE, parts.test)
    assert set(record) == {"methods", "by_texts", "by_features"}
    words = record["methods"][METHODS.index("words")]
    assert words["auroc"] == 1.0
    assert "choice" in words
    for some in record["by_texts"].values():
        assert [len(one["draws"]) for one in some] == [2] * len(METHODS)


def test_as_many_are_learned_from_as_there_are_of_the_rarer_kind():
    train = torch.tensor([True, True, True, False, False])
    held_out = torch.tensor([False, False, False, True, False])
    positive = torch.tensor([True, True, False, True, False])
    parts = TextSplit(train, held_out, ~(train | held_out))
    assert learned(positive, parts) == 1


def test_percents_of_texts_are_one_text_at_least():
    assert shares(40) == {"1": 1, "5": 2, "10": 4, "50": 20, "100": 40}
