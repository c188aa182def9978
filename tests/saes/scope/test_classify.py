"""Detectors on texts that chose nothing, and what stands beside them."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.scope.activity import Activity
from saes.scope.classify import (
    by_features,
    by_stream,
    by_words,
    judged_on,
    only,
    parts_of,
)
from saes.scope.separation import auroc, figures_of


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


def shared_out():
    """In the second dictionary features 3 and 5 share the positive texts out between them."""
    dense = drawn(40, 20)
    dense[dense < 0.8] = 0
    positive = torch.arange(40) % 2 == 0
    dense[:, 13], dense[:, 15] = 0, 0
    dense[0::4, 13] = 3 + drawn(10, seed=1)
    dense[2::4, 15] = 7 + drawn(10, seed=2)
    return activity_of(dense, (10, 10)), positive


@pytest.fixture
def data():
    return shared_out()


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
