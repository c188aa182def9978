"""Detectors: the features of most difference, what a score is, where it divides."""

import pytest
import torch
from sklearn.metrics import f1_score

from hooked_qwen.nodes import Node
from saes.scope.classify import (
    by_features,
    parts_of,
)
from saes.scope.detector import Detector, best_threshold, chosen_detectors, share_differences
from tests.saes.scope.test_classify import activity_of, auroc_of, drawn, shared_out


@pytest.fixture
def data():
    return shared_out()


def test_the_features_of_most_difference_are_chosen(data):
    activity, positive = data
    one, found, same = chosen_detectors(activity, positive, (1, 2, 2))
    assert same == found
    assert one.nodes == found.nodes[:1]
    assert {node.feature for node in found.nodes} == {3, 5}
    assert {node.site for node in found.nodes} == {"resid_post.1"}
    by_node = dict(zip(found.nodes, found.usual, strict=True))
    assert by_node[Node("resid_post.1", 3)] == pytest.approx(float(activity.largest[
        activity.feature == 13].mean()))  # fmt: skip
    differences = share_differences(activity, positive)
    assert differences[13] == pytest.approx(0.5)


def test_features_of_several_dictionaries_are_taken_together():
    """One feature of each of two dictionaries shares the positive texts out between them."""
    positive = torch.arange(40) % 2 == 0
    dense = torch.zeros(40, 20)
    dense[0::4, 3], dense[2::4, 15] = 3.0, 7.0
    activity, parts = activity_of(dense, (10, 10)), parts_of(positive)
    (found,) = chosen_detectors(activity, positive, (2,), across="several")
    assert {(n.site, n.feature) for n in found.nodes} == {("resid_post.0", 3), ("resid_post.1", 5)}
    method, _ = by_features(activity, positive, parts, sizes=(2,), across="several")
    one, _ = by_features(activity, positive, parts, sizes=(2,))
    assert auroc_of(method, positive, parts) == 1.0 > auroc_of(one, positive, parts)
    assert method.choice.startswith("2 of resid_post.")
    assert method.choice.count("resid_post") == 2


def test_a_score_is_the_largest_of_the_features_in_usual_activations():
    dense = torch.tensor([[0.0, 2.0, 4.0], [1.0, 0.0, 0.0], [0.0, 0.0, -3.0]])
    one = Detector(
        nodes=(Node("resid_post.0", 1), Node("resid_post.0", 2)), usual=(4.0, 2.0), threshold=0.0
    )
    activity = activity_of(dense, (3,))
    assert one.scores(activity).tolist() == [2.0, 0.0, 0.0]
    assert one.by_feature(activity)[0].tolist() == [0.5, 2.0]


def test_where_nothing_is_on_more_often_there_is_no_detector():
    activity = activity_of(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), (2,))
    assert chosen_detectors(activity, torch.tensor([True, False]), (1,)) == [None]


def test_the_threshold_has_the_largest_f1():
    scores, positive = drawn(30), drawn(30, seed=1) < 0.4
    found = best_threshold(scores, positive)
    best = f1_score(positive, scores > found)
    for other in torch.linspace(-0.1, 1.1, 400).tolist():
        assert f1_score(positive, scores > other, zero_division=0) <= best + 1e-12
