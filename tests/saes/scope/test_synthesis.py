"""What is missing, how near texts are, and what a classifier gains: against counting."""

import pytest
import torch

from saes.scope.synthesis import (
    covered_share,
    missing_features,
    nearest_cosine,
    nearest_shared,
    on_in,
    right_by_stream,
    right_by_words,
    score_of,
)
from tests.saes.scope.test_coverage import drawn, incidence


def test_missing_is_on_in_the_target_and_never_in_training():
    training, target = drawn(6, 30, 0.1, 1), drawn(12, 30, 0.3, 2)
    found = missing_features(incidence(training), incidence(target), least=3)
    often = target.sum(0)
    expected = [i for i in range(30) if often[i] >= 3 and not training[:, i].any()]
    assert sorted(found.tolist()) == expected
    assert len(expected) > 2
    counts = often[found].tolist()
    assert counts == sorted(counts, reverse=True)


def test_covered_is_a_share_of_what_is_wanted():
    one, other = drawn(3, 20, 0.2, 3), drawn(2, 20, 0.2, 4)
    wanted = torch.arange(20) < 10
    on = one.any(0) | other.any(0)
    found = covered_share(wanted, incidence(one), incidence(other))
    assert found == pytest.approx(float(on[:10].double().mean()))
    assert torch.equal(on_in(incidence(one)), one.any(0))


def test_runs_of_tokens_that_the_nearest_has():
    others = [[1, 2, 3, 4, 9], [5, 6, 7]]
    assert nearest_shared([[1, 2, 3, 4], [1, 2, 3, 7], [8, 8, 8]], others) == [1.0, 0.5, 0.0]
    assert nearest_shared([[5, 6], [5]], [[5, 6]]) == [1.0, 0.0]
    assert nearest_shared([[1, 2, 3]], []) == [0.0]
    assert nearest_shared([], others) == []


def test_the_cosine_is_of_what_differs_from_the_training_mean():
    training = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) + 3
    x = torch.stack([training[2], 2 * training[4] - training.mean(0), training[0] + 1])
    found = nearest_cosine(x, training)
    assert found[:2].tolist() == pytest.approx([1.0, 1.0])
    centred = training - training.mean(0)
    plain = torch.nn.functional.cosine_similarity(x[2] - training.mean(0), centred).max()
    assert found[2] == pytest.approx(float(plain), abs=1e-5)
    moved = nearest_cosine(x + 7, training + 7)
    torch.testing.assert_close(moved, found, atol=1e-4, rtol=0)


def test_classifiers_tell_what_they_can():
    generator = torch.Generator().manual_seed(0)
    labels = ["a", "b", "c"] * 8
    where = torch.tensor([[3.0, 0], [0, 3], [-3, -3]]).repeat(8, 1)
    x = where + 0.3 * torch.randn(24, 2, generator=generator)
    right = right_by_stream(x[:12], labels[:12], x[12:], labels[12:])
    assert right.tolist() == [1.0] * 12
    wrong = right_by_stream(x[:12], labels[:12], x[12:], ["a"] * 12)
    assert wrong.sum() == 4
    texts = ["好 one", "坏 two", "大 three"] * 4
    assert right_by_words(texts, labels[:12], ["好的", "three"], ["a", "c"]).tolist() == [1.0, 1.0]


def test_a_score_is_the_mean_over_seeds_beside_real_texts_alone():
    real = torch.tensor([1.0, 0, 0, 1, 1, 0]).double()
    right = torch.stack([torch.ones(6), real]).double()
    found = score_of(right, real)
    assert (found.accuracy, found.by_seed) == (0.75, [1.0, 0.5])
    assert found.ahead == pytest.approx(0.25)
    assert found.ahead_interval[0] >= 0
    same = score_of(real[None], real)
    assert (same.ahead, same.ahead_interval) == (0.0, [0.0, 0.0])
