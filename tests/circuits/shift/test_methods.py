"""What SHIFT stands beside: each method by itself, on one seed."""

from dataclasses import replace

import pytest
import torch

from circuits.shift.judging import Judged
from circuits.shift.labelled import LabelledText
from circuits.shift.methods import (
    Judgement,
    bottleneck,
    ceiling,
    cue_words,
    erased,
    first_layer,
    mean_difference,
    recalibrated,
    shift,
    unedited,
    words_deleted,
)
from hooked_qwen.nodes import Node


def judged_as(node, *, cut):
    return Judged(node=node, label=1.0, spurious=1.0, cut=cut)


@pytest.fixture(scope="module")
def judged(case):
    ranking = case.label_effects()
    nodes = [node for node, _ in ranking if node.kind == "feature"][:4]
    features = [judged_as(node, cut=i < 2) for i, node in enumerate(nodes)]
    return Judgement(case, features, ranking)


def with_cut(judged, *cut):
    features = [replace(f, cut=bool(f.node in cut)) for f in judged.features]
    return Judgement(judged.case, features, judged.ranking)


def test_nothing_changed_is_what_the_probe_says(judged):
    case = judged.case
    (said,) = unedited(judged)["nothing changed"]
    assert torch.equal(said.one, case.probe.says(case.means["balanced"]))
    assert torch.equal(said.label, case.texts["balanced"].label)


def test_a_method_that_changes_the_model_comes_with_both_heads(judged):
    names = ["SHIFT", "SHIFT, head trained again"]
    assert list(shift(judged)) == names
    assert [len(draws) for draws in shift(judged).values()] == [1, 1]
    assert shift(with_cut(judged)) == {}, "nothing is cut"


def test_with_the_threshold_recalibrated_half_of_the_texts_are_of_each_class(judged):
    (said,) = recalibrated(judged)["threshold recalibrated"]
    assert float(said.one.double().mean()) == 0.5


def test_what_is_erased_no_longer_tells_the_spurious_class_of_what_it_was_fitted_on(judged):
    assert len(erased(judged)) == len(mean_difference(judged)) == 2
    texts = {k: v for k, v in judged.case.texts.items() if k != "spurious_only"}
    without = Judgement(replace(judged.case, texts=texts), judged.features, judged.ranking)
    assert erased(without) == mean_difference(without) == {}


def test_only_features_whose_writes_are_all_in_the_first_layer_are_near_the_embedding(judged):
    late = with_cut(judged, Node("resid_post.2", 1))
    assert first_layer(late) == {}
    layer = min(site.layer for site in judged.case.suite.writes)
    early = [f for f in judged.ranking.nodes() if f.site.endswith(f".{layer}")][:1]
    features = [judged_as(node, cut=True) for node in early]
    assert len(first_layer(Judgement(judged.case, features, judged.ranking))) == 2


def test_a_bottleneck_needs_a_feature_that_is_kept(judged):
    assert len(bottleneck(judged)) == 1
    assert bottleneck(with_cut(judged, *(f.node for f in judged.features))) == {}


def test_the_ceiling_is_trained_where_signals_are_independent(judged):
    (said,) = ceiling(judged)["trained on balanced texts (ceiling)"]
    assert len(said.one) == len(judged.case.data.balanced)


def test_without_words_that_are_known_those_that_tell_the_class_are_deleted(judged):
    known = words_deleted(judged)
    data = replace(judged.case.data, words=(), cues=(), spurious_only=())
    case = replace(judged.case, data=data)
    assert list(known) == ["words deleted", "words deleted, head trained again"]
    assert words_deleted(Judgement(case, judged.features, judged.ranking)) == {}


def test_words_that_tell_the_class_come_by_their_shares():
    texts = [LabelledText(f"{who} has a Dog", 0, kind) for kind, who in enumerate(("She", "He"))]
    texts.append(LabelledText("she runs", 0, 0))
    assert cue_words(texts, 2) == ["he", "she"]
    assert cue_words(texts[:1]) == []
