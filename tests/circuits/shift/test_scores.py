"""Scores of a classifier on texts in which two signals are independent."""

import pytest
import torch

from circuits.shift.scores import ProbePredictions, scores

LABEL = torch.tensor([0, 0, 1, 1]).bool().repeat(25)
SPURIOUS = torch.tensor([0, 1, 0, 1]).bool().repeat(25)


def of(one):
    return scores([[ProbePredictions(one, LABEL, SPURIOUS)]])


@pytest.mark.parametrize(
    ("one", "label", "spurious", "worst"),
    [
        (LABEL, 1.0, 0.5, 1.0),
        (~LABEL, 0.0, 0.5, 0.0),
        (SPURIOUS, 0.5, 1.0, 0.0),
        (~SPURIOUS, 0.5, 0.0, 0.0),
        (torch.ones_like(LABEL), 0.5, 0.5, 0.0),
        (LABEL & SPURIOUS, 0.75, 0.75, 0.0),
    ],
)
def test_what_a_classifier_goes_by_is_told(one, label, spurious, worst):
    found = of(one)
    assert found.label.value == pytest.approx(label)
    assert found.spurious.value == pytest.approx(spurious)
    assert found.worst.value == pytest.approx(worst)


def test_scores_are_those_of_the_texts_themselves_and_intervals_hold_them():
    one = torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.3 + 0.4 * LABEL.float()
    found = of(one)
    assert found.label.value == pytest.approx(float((one == LABEL).double().mean()))
    assert found.spurious.value == pytest.approx(float((one == SPURIOUS).double().mean()))
    groups = [
        float((one == LABEL)[(a == LABEL) & (b == SPURIOUS)].double().mean())
        for a in (False, True)
        for b in (False, True)
    ]
    assert [g.value for g in found.groups] == pytest.approx(groups)
    assert found.worst.value == pytest.approx(min(groups))
    for score in (found.label, found.spurious, *found.groups):
        low, high = score.interval
        assert low < score.value < high
        assert high - low < 0.4


def test_draws_of_a_seed_are_averaged_and_seeds_are_drawn_again():
    both = scores(
        [[ProbePredictions(LABEL, LABEL, SPURIOUS), ProbePredictions(~LABEL, LABEL, SPURIOUS)]]
    )
    assert both.label.value == pytest.approx(0.5)
    assert both.label.interval == pytest.approx([0.5, 0.5])
    apart = scores(
        [[ProbePredictions(LABEL, LABEL, SPURIOUS)], [ProbePredictions(~LABEL, LABEL, SPURIOUS)]]
    )
    assert apart.label.value == pytest.approx(0.5)
    assert apart.label.interval == pytest.approx([0.0, 1.0])
