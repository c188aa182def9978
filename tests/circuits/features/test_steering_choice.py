"""Features chosen by what they read or write, of texts or of a store."""

import pytest
import torch

from circuits.features.steering_choice import ConceptTexts, choose
from hooked_qwen.nodes import Node
from saes.examples.store import StoreConfig, build_store, open_store
from saes.on_demand import OnDemand
from saes.scope.output_score import NEUTRAL
from tests.circuits.features.test_steering import SITES, TEXTS, chosen_by, model_on
from tests.toys import toy_suite


@pytest.fixture(scope="module")
def model():
    return model_on()


@pytest.fixture(scope="module")
def suite():
    return toy_suite(*SITES, dtype=torch.float32)


@pytest.fixture(scope="module")
def examples():
    return ConceptTexts(texts=tuple(TEXTS), positive=torch.tensor([True, False] * 4))


def test_features_are_chosen_by_what_they_read_or_by_what_they_write(model, suite, examples):
    both = chosen_by(model, suite, examples, select="both").features
    every = chosen_by(model, suite, examples, select="activation", top=6).features
    effects = [one.contrast.effect for one in every]
    assert effects == sorted(effects, reverse=True)
    assert effects[-1] > 0
    by_output = sorted(every, key=lambda one: -one.output_score)
    for way, ranked in (("activation", every), ("output", by_output)):
        assert {o.node for o in both if way in o.by} == {o.node for o in ranked[:2]}


def test_activations_come_from_a_store_as_well(model, suite, examples, tmp_path):
    config = StoreConfig(tokens=64, block_length=8, blocks_per_pass=4, top=3, sampled=1)
    build_store(model, OnDemand(suite.fitting(model)), TEXTS * 4, tmp_path, config=config)
    store = open_store(tmp_path)
    node = Node(SITES[1], 5)
    found = choose(model, suite, named=[node], examples=None, usage_from=store, neutral=NEUTRAL)
    own = store.examples(suite[SITES[1]])
    assert found.usage.largest_of(node) == pytest.approx(own.largest(5))
    assert found.usage.density_of(node) == pytest.approx(own.density(5))
    assert found.features[0].input_score is not None
