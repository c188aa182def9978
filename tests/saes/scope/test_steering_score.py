"""Concept and fluency in one number, and strengths chosen on other prompts."""

from math import nan

import pytest
import torch

from saes.scope.steering_score import chosen, fluency, score, wanted


def test_a_text_of_which_nothing_is_told_is_not_what_was_asked_for():
    for goal, of_known in (("more", [0.0, 0.7, 1.0]), ("less", [1.0, 0.3, 0.0])):
        found = wanted(torch.tensor([-1.0, 0.7, 2.0, nan]), goal).tolist()
        assert found == pytest.approx([*of_known, 0.0])


def test_a_text_is_as_fluent_as_the_plain_one_at_most():
    plain = torch.tensor([1.0, 1.0, 1.0, 1.0])
    nats = torch.tensor([0.5, 2.0, 1.0, torch.nan])
    repeated = torch.tensor([0.0, 0.0, 0.25, 0.0])
    found = fluency(nats, plain, repeated).tolist()
    assert found == pytest.approx([1.0, 0.36787944, 0.75, 0.0])


def test_both_count_in_one_number():
    assert score(torch.tensor([0.5, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])).tolist() == (
        pytest.approx([2 / 3, 1, 0])
    )
    assert wanted(torch.tensor([-1.0, 0.3, 2.0]), "less").tolist() == pytest.approx([1, 0.7, 0])


def test_no_prompt_chooses_what_it_is_judged_at():
    """The first arm does well on even prompts, the second on odd ones: judged, both do badly."""
    scores = torch.tensor([[1.0, 0.0] * 3, [0.0, 1.0] * 3])
    found = chosen(scores)
    assert found.arms == (0, 1)
    assert found.score.tolist() == [0.0] * 6
    few = chosen(scores[:, :3])
    assert few.arms == (0,)
    assert few.score.tolist() == [1.0, 0.0, 1.0]
