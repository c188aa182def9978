"""Methods of a sweep held against each other, on scores that are set by hand."""

import math

import pytest
import torch

from circuits.edits.steered import Continuations
from circuits.features.steering_arms import Arm
from circuits.features.steering_choice import SteeringFeature
from circuits.features.steering_methods import ScoredContinuations, methods_of, selection_of
from hooked_qwen.nodes import Node
from saes.edit_file import Edit
from saes.scope.steering import FEATURE, MEANS, RANDOM, Direction
from saes.scope.text_scores import Scorer

ONE, TWO, THREE = (Node("resid_post.0", number) for number in (1, 2, 3))
NAN = math.nan


def arm(node, *groups, strength=1.0, method=FEATURE):
    direction = Direction(method=method, node=node, unit=1.0, norm=1.0)
    return Arm(direction=direction, strength=strength, edit=Edit(operations=()), groups=groups)


def written(texts, *, nats=1.0, repetition=0.0, kl=0.5):
    n = len(texts)
    each = (
        torch.tensor(x if isinstance(x, list) else [x] * n, dtype=torch.float64)
        for x in (nats, repetition, kl)
    )
    nats, repetition, kl = each
    return Continuations(texts=tuple(texts), nats=nats, repetition=repetition, kl=kl)


def letters(seen=None):
    """The share of a text's characters that are `c`; each call's texts are noted."""

    def share(texts):
        if seen is not None:
            seen.append(list(texts))
        return torch.tensor([text.count("c") / len(text) if text else NAN for text in texts])

    return Scorer(name="c", said="letters c", of=share)


def scored(*rows):
    """Rows of scores, of which concept and fluency say the same as the score."""
    score = torch.tensor(rows, dtype=torch.float64)
    texts = [written(["x"] * score.shape[1])] * len(rows)
    return ScoredContinuations(written=texts, concept=score, fluency=score, score=score)


def test_a_score_is_the_harmonic_mean_of_concept_and_fluency():
    """At twice the plain text's perplexity and half repeated fluency is 1/4."""
    plain = written(["aaca", "cccc"], nats=[1.0, 2.0])
    worse = written(["cccc", "aacc"], nats=[1.0 + math.log(2), 1.5], repetition=[0.5, 0.0])
    found = ScoredContinuations.of([plain, worse], letters(), "more")
    assert found.concept.tolist() == [[0.25, 1.0], [1.0, 0.5]]
    torch.testing.assert_close(
        found.fluency, torch.tensor([[1.0, 1.0], [0.25, 1.0]], dtype=torch.float64)
    )
    expected = [[2 * 0.25 / 1.25, 1.0], [2 * 0.25 / 1.25, 2 * 0.5 / 1.5]]
    torch.testing.assert_close(found.score, torch.tensor(expected, dtype=torch.float64))
    less = ScoredContinuations.of([plain, worse], letters(), "less")
    assert less.score[0].tolist() == pytest.approx([2 * 0.75 / 1.75, 0.0])


def test_each_different_text_is_scored_once():
    seen = []
    rows = [written(["a", "c", "a"]), written(["c", "b", "c"])]
    assert ScoredContinuations.of(rows, letters(seen), "more").concept.tolist() == [
        [0.0, 1.0, 0.0],
        [1.0, 0.0, 1.0],
    ]
    assert seen == [["a", "c", "b"]]


def test_a_record_has_means_of_what_is_told():
    """Perplexity is exp of the mean of nats; an empty text has none, and no concept."""
    plain = written(["ac", "", "cc"], nats=[1.0, NAN, 2.0], kl=[0.2, NAN, 0.4])
    found = ScoredContinuations.of([plain], letters(), "more").record(0)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(1.5), rel=1e-5)
    low, high = found["perplexity"]["interval"]
    assert math.exp(1) <= low < math.exp(1.5) < high <= math.exp(2) + 1e-5
    assert found["concept"]["value"] == pytest.approx(0.75)
    assert found["kl"]["value"] == pytest.approx(0.3)
    assert found["by_prompt"] == [0.5, None, 1.0]
    assert found["fluency_by_prompt"] == [1.0, 0.0, 1.0]
    assert found["score"]["value"] == pytest.approx((2 * 0.5 / 1.5 + 0 + 1) / 3, rel=1e-5)
    nothing = written(["", ""], nats=NAN, kl=NAN)
    none = {"value": None, "interval": None}
    empty = ScoredContinuations.of([nothing], letters(), "more").record(0)
    assert (empty["perplexity"], empty["concept"], empty["kl"]) == (none, none, none)


def test_a_strength_is_chosen_on_the_other_half_of_the_prompts():
    """Arm 1 is best at even prompts, arm 2 at odd ones: each is judged where it did not choose."""
    arms = [arm(ONE, "given"), arm(ONE, "given", strength=2.0)]
    judged = scored([0.5] * 4, [0.9, 0.1, 0.8, 0.2], [0.3, 0.7, 0.2, 0.6])
    (plain, own), simple = methods_of(arms, judged, told=False, alone=1)
    assert (plain["group"], own["group"], simple) == ("plain", "given", "plain")
    assert own["score_by_prompt"] == [0.3, 0.1, 0.2, 0.2]
    assert own["score"]["value"] == pytest.approx(0.2)
    assert own["tried"] == 2
    assert [one["strength"] for one in own["chosen"]] == [1.0, 2.0]
    assert own["difference"]["value"] == pytest.approx(-0.3)
    assert own["concept"]["value"] == own["fluency"]["value"] == pytest.approx(0.2)
    assert own["by_prompt"] == own["fluency_by_prompt"] == own["score_by_prompt"]
    assert (plain["chosen"], plain["difference"], plain["tried"]) == ([], None, 1)


def test_differences_are_from_the_best_simple_method_prompt_by_prompt():
    """A difference that is the same at every prompt has an interval of no width."""
    arms = [arm(ONE, "output", "activation"), arm(TWO, MEANS, method=MEANS), arm(THREE, RANDOM)]
    base = torch.tensor([0.1, 0.5, 0.3, 0.7, 0.2])
    rows = [base, base + 0.1, base + 0.3, base + 0.2, base - 0.1]
    judged = scored(*(row.tolist() for row in rows))
    found, simple = methods_of(arms, judged, told=True, alone=2)
    of = {one["group"]: one for one in found}
    assert simple == MEANS
    assert [one["group"] for one in found] == [
        "output", "activation", MEANS, "instruction", "plain", RANDOM,
    ]  # fmt: skip
    differences = {"output": 0.1, "instruction": -0.1, "plain": -0.2, RANDOM: -0.3}
    for group, expected in differences.items():
        assert of[group]["difference"]["value"] == pytest.approx(expected, abs=1e-6)
        assert of[group]["difference"]["interval"] == pytest.approx([expected] * 2, abs=1e-6)
    assert of[MEANS]["difference"] is None
    assert of["output"]["score_by_prompt"] == of["activation"]["score_by_prompt"]
    assert of["instruction"]["chosen"] == []
    assert of[RANDOM]["name"] == "random features"


def feature(node, *by):
    return SteeringFeature(
        node=node, by=by, output_score=0.0, input_score=None, promoted=(), contrast=None
    )


def test_features_chosen_either_way_are_means_over_features_each_at_its_best():
    arms = [
        arm(ONE, "output", strength=1.0),
        arm(ONE, "output", strength=2.0),
        arm(TWO, "output", "activation"),
        arm(TWO, "negative", strength=-1.0),
        arm(THREE, "activation"),
    ]
    rows = [[0.0] * 4, [0.2] * 4, [0.6] * 4, [0.4] * 4, [0.9] * 4, [0.1] * 4]
    features = [feature(ONE, "output"), feature(TWO, "output", "activation")]
    features += [feature(THREE, "activation")]
    found = selection_of(arms, scored(*rows), features, 1)
    assert found["output"]["value"] == pytest.approx((0.6 + 0.4) / 2)
    assert found["activation"]["value"] == pytest.approx((0.4 + 0.1) / 2)
    assert found["ratio"]["value"] == pytest.approx(2.0)
    assert found["difference"]["value"] == pytest.approx(0.25)
    assert found["difference"]["interval"] == pytest.approx([0.25, 0.25])
    assert found["shared"] == 1
    assert selection_of(arms, scored(*rows), features[:1], 1) is None
    assert selection_of(arms, scored(*rows), [feature(ONE)], 1) is None


def test_no_ratio_is_told_of_nothing():
    arms = [arm(ONE, "output"), arm(TWO, "activation")]
    features = [feature(ONE, "output"), feature(TWO, "activation")]
    found = selection_of(arms, scored([0.0] * 4, [0.5] * 4, [0.0] * 4), features, 1)
    assert found["ratio"] is None
    assert found["difference"]["value"] == pytest.approx(0.5)
