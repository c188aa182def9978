"""Texts asked for by examples: what is asked, what is kept of what was written."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from circuits.features.writers import WritingConfig, each_by
from circuits.features.written import (
    SPARE,
    SyntheticText,
    Wanted,
    at_random,
    drawn,
    for_features,
    with_fired,
    within,
    written,
)
from hooked_qwen.nodes import Node
from saes.evaluation.probing import Labelled
from saes.scope.coverage import Incidence

TEXTS = [
    Labelled(text, label) for label in "az" for text in (f"{label}b", f"{label}c", f"{label}d")
]
CONTINUED = WritingConfig(style="continuation", tokens=6, separator=" ")


def wanted(feature, label="a"):
    return Wanted(
        feature=feature, node=Node("mlp_out.1", feature), called="x", hint="", label=label,
        target_texts=3, shown=("ab", "ac", "ad"),
    )  # fmt: skip


def text(one="new", label="a", **more):
    given = {"row": "r", "wanted": None, "shown": ("ab",), "seed": 0, **more}
    return SyntheticText(text=one, label=label, **given)


def test_each_feature_is_asked_for_as_often_as_said_with_examples_of_its_own():
    asked = [wanted(3), wanted(5, "z")]
    found = for_features("r", asked, tries=4, shown=2, seed=1, rng=random.Random(0))
    assert Counter(one.wanted.feature for one in found) == {3: 4, 5: 4}
    assert all(len(set(one.shown)) == 2 for one in found)
    assert all(set(one.shown) <= {"ab", "ac", "ad"} for one in found)
    assert len({one.shown for one in found}) > 1
    few = for_features("r", asked[:1], tries=1, shown=9, seed=1, rng=random.Random(0))
    assert set(few[0].shown) == {"ab", "ac", "ad"}


def test_random_requests_are_some_more_than_the_budget_of_each_label_there_is():
    budget = Counter({"a": 4, "none": 3})
    found = at_random("r", TEXTS, budget, shown=1, seed=1, rng=random.Random(0))
    assert {one.label for one in found} == {"a"}
    assert len(found) == round(SPARE * 4 + 1)
    assert {shown for one in found for shown in one.shown} <= {"ab", "ac", "ad"}


def test_what_is_empty_known_or_written_before_is_left_out():
    replies = iter([["new one", "KNOWN  text", "", "New  ONE"], ["other", "new one"]])
    requests = [text(""), text("")]
    found = written(requests, each_by(lambda _: next(replies)), CONTINUED, ["known text"], 0)
    assert [one.text for one in found] == ["new one", "other"]
    assert written([], each_by(lambda _: pytest.fail("asked")), CONTINUED, [], 0) == []


def test_a_text_is_kept_where_its_own_feature_is_on():
    texts = [text(wanted=wanted(3)), text(wanted=wanted(5)), text()]
    on = Incidence.of_rows([[3, 7], [3], [5]], 9)
    found = with_fired(texts, on, [wanted(3), wanted(5)])
    assert [one.fired for one in found] == [(3,), (3,), (5,)]
    assert [one.kept for one in found] == [True, False, True]
    assert not with_fired([], Incidence.of_rows([], 9), [])
    assert torch.equal(on.sample, torch.tensor([0, 0, 1, 2]))


def test_of_each_label_no_more_is_kept_than_the_budget_has():
    texts = [replace(text(str(i), label), kept=kept) for i, (label, kept) in enumerate(
        [("a", True), ("a", False), ("a", True), ("a", True), ("z", True)])]  # fmt: skip
    budget = Counter(a=2)
    assert [one.kept for one in within(texts, budget)] == [True, False, True, False, False]
    assert budget == Counter(a=2), "the caller's stays as it is"


def test_real_texts_are_as_many_as_the_budget_or_as_there_are():
    found = drawn(TEXTS, Counter(a=2, z=9), random.Random(0))
    assert Counter(one.label for one in found) == {"a": 2, "z": 3}
    assert len(set(found)) == 5
