"""Detectors of a few features, and what stands beside them."""

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.evaluation.bootstrap import resamples
from saes.scope.activity import Activity
from saes.scope.classify import (
    by_features,
    by_stream,
    by_words,
    judged_on,
    only,
    parts_of,
)
from saes.scope.detector import Detector, best_threshold, chosen_detectors, share_differences
from saes.scope.separation import auroc, figures_of, true_positives


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def activity_of(dense, widths):
    """An activity of these activations, texts by features."""
    text, feature = dense.nonzero(as_tuple=True)
    value = dense[text, feature].float()
    return Activity(
        names=tuple(f"resid_post.{i}" for i in range(len(widths))),
        widths=tuple(widths),
        was_cut=torch.zeros(len(dense), dtype=torch.bool),
        text=text,
        feature=feature,
        mean=value / 2,
        largest=value,
    )


def auroc_of(method, positive, parts):
    """On the part that is judged on."""
    return judged_on([method], positive, parts.test).auroc


@pytest.fixture
def data():
    """In the second dictionary features 3 and 5 share the positive texts out between them."""
    dense = drawn(40, 20)
    dense[dense < 0.8] = 0
    positive = torch.arange(40) % 2 == 0
    dense[:, 13], dense[:, 15] = 0, 0
    dense[0::4, 13] = 3 + drawn(10, seed=1)
    dense[2::4, 15] = 7 + drawn(10, seed=2)
    return activity_of(dense, (10, 10)), positive


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


def test_figures_are_those_of_scikit_learn():
    scores, positive = (drawn(50) * 10).round(), drawn(50, seed=1) < 0.4
    found = figures_of([scores.double()], positive, [4.5])
    assert found.auroc == pytest.approx(roc_auc_score(positive, scores))
    assert found.f1 == pytest.approx(f1_score(positive, scores > 4.5))
    assert found.auroc_interval[0] < found.auroc < found.auroc_interval[1]
    assert found.f1_interval[0] < found.f1 < found.f1_interval[1]


def test_intervals_are_of_resampled_texts_and_draws_counted_one_by_one():
    """Each resample written out: its texts repeated, judged by the draw that it took."""
    positive = torch.arange(250) < 30
    several = [drawn(250, seed=s).double() + 0.3 * positive for s in range(3)]
    thresholds = [0.6, 0.7, 0.8]
    for scores, limits in ((several[:1], thresholds[:1]), (several, thresholds)):
        found = figures_of(scores, positive, limits)
        shares = resamples(30), resamples(220, seed=1)
        which = torch.randint(len(scores), (2000,), generator=torch.Generator().manual_seed(2))
        rows = []
        for i, of_positive, of_negative in zip(which.tolist(), *shares, strict=True):
            counts = torch.cat([30 * of_positive, 220 * of_negative]).round().long()
            some = scores[i].repeat_interleave(counts)
            of = positive.repeat_interleave(counts)
            hits, wrong = (some[kind] > limits[i] for kind in (of, ~of))
            f1 = 2 * hits.sum() / (hits.sum() + wrong.sum() + 30)
            rows.append((float(f1), auroc(some, of), true_positives(some, of)))
        for interval, values in zip(
            (found.f1_interval, found.auroc_interval, found.tpr_interval),
            torch.tensor(rows, dtype=torch.float64).T,
            strict=True,
        ):
            ends = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
            assert interval == pytest.approx(ends.tolist(), abs=1e-6)
        alone = [figures_of([s], positive, [t]) for s, t in zip(scores, limits, strict=True)]
        for name in ("f1", "auroc", "tpr", "accuracy"):
            mean = sum(getattr(one, name) for one in alone) / len(alone)
            assert getattr(found, name) == pytest.approx(mean, abs=1e-12)


def test_an_interval_reaches_over_draws_that_differ():
    positive = torch.arange(60) < 30
    good, bad = (drawn(60) + sign * 0.5 * positive.double() for sign in (1, -1))
    both = figures_of([good, bad], positive, [0.7, 0.7])
    for one in (figures_of([scores], positive, [0.7]) for scores in (good, bad)):
        inner, outer = one.auroc_interval, both.auroc_interval
        assert outer[1] - outer[0] > 2 * (inner[1] - inner[0])
        assert outer[0] < inner[1]
        assert inner[0] < outer[1]
        assert figures_of([good if one.auroc > 0.5 else bad] * 4, positive, [0.7] * 4) == one


def test_one_negative_text_in_a_hundred_may_pass():
    scores = torch.cat([torch.arange(200.0), torch.tensor([197.5, 198.5, 10.0])])
    positive = torch.arange(203) >= 200
    # Two of two hundred: 199 and 198.
    assert true_positives(scores, positive) == pytest.approx(2 / 3)
    few = torch.cat([torch.arange(50.0), torch.tensor([48.5, 49.5])])
    assert true_positives(few, torch.arange(52) >= 50) == 0.5


def test_parts_share_nothing_and_keep_both_kinds():
    positive = torch.arange(50) < 20
    parts = parts_of(positive, seed=1)
    three = torch.stack([parts.train, parts.held_out, parts.test])
    assert (three.sum(0) == 1).all()
    assert [int((part & positive).sum()) for part in three] == [10, 4, 6]
    few = only(parts, positive, 3)
    assert torch.equal(few.test, parts.test)
    assert not ((few.train | few.held_out) & parts.test).any()
    assert int((few.train & positive).sum()) == 2
    assert int((few.held_out & ~positive).sum()) == 1
    single = only(parts, positive, 1)
    assert torch.equal(single.train, single.held_out)
    with pytest.raises(ValueError, match="there are 3 positive texts"):
        parts_of(torch.arange(50) < 3)


def test_figures_are_of_texts_that_chose_nothing(data):
    activity, positive = data
    parts = parts_of(positive)
    method, detector = by_features(activity, positive, parts, sizes=(1, 2))
    assert (auroc_of(method, positive, parts), method.choice) == (1.0, "2 of resid_post.1")
    assert detector.threshold == method.threshold
    # With its labels turned round on the test part alone it is wrong everywhere there.
    turned = torch.where(parts.test, ~positive, positive)
    wrong, same = by_features(activity, turned, parts, sizes=(1, 2))
    assert same == detector
    assert auroc_of(wrong, turned, parts) == 0.0


def test_the_stream_is_read_at_the_layer_that_tells_most():
    positive = torch.arange(60) % 2 == 0
    noise = {Site("resid_post", layer): torch.randn(60, 8).double() for layer in (0, 2)}
    told = torch.randn(60, 8).double() + 4 * positive[:, None]
    parts = parts_of(positive)
    found = by_stream({**noise, Site("resid_post", 1): told}, positive, parts)
    assert [method.name for method in found] == ["linear probe", "difference of means"]
    for method in found:
        assert (method.choice, auroc_of(method, positive, parts)) == ("resid_post.1", 1.0)


def test_words_of_any_script_count():
    positive = torch.arange(40) % 2 == 0
    texts = [f"{'好' if i % 2 == 0 else '坏'}的书 {i}" for i in range(40)]
    parts = parts_of(positive)
    assert auroc_of(by_words(texts, positive, parts), positive, parts) == 1.0


def test_the_held_out_part_chooses_between_one_and_several_dictionaries():
    positive = torch.arange(40) % 2 == 0
    parts = parts_of(positive)
    apart, together = torch.zeros(40, 20), torch.zeros(40, 20)
    apart[0::4, 3], apart[2::4, 15] = 3.0, 7.0
    together[0::4, 3], together[2::4, 5] = 3.0, 7.0
    for dense, way in ((apart, "several"), (together, "one")):
        activity = activity_of(dense, (10, 10))
        found = {
            across: by_features(activity, positive, parts, sizes=(1, 2), across=across)
            for across in ("one", "several", "chosen")
        }
        assert found["chosen"][1] == found[way][1]
        ranks = {
            across: auroc(method.scores[parts.held_out], positive[parts.held_out])
            for across, (method, _) in found.items()
        }
        assert ranks["chosen"] == max(ranks.values())


def test_the_same_scores_are_judged_on_other_texts(data):
    activity, positive = data
    parts = parts_of(positive)
    method, _ = by_features(activity, positive, parts)
    own = figures_of([method.scores[parts.train]], positive[parts.train], [method.threshold])
    assert judged_on([method], positive, parts.train) == own
