"""How much of a circuit is found again: laws of resampled prompts, sets and estimators."""

from dataclasses import replace

import pytest
import torch

from circuits.discovery.methods import discover_by_method
from circuits.discovery.sparse_feature import discover
from circuits.verification.prompt_draws import drawn, drawn_shares, effects_of_each
from circuits.verification.stability import (
    StabilityConfig,
    jaccard,
    stability,
    strongest,
)
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite

SITES = ("mlp_out.0", "resid_post.1")
SETTINGS = {"nodes": 8, "steps": 1}


@pytest.fixture(scope="module")
def case():
    analysis = analysis_of(shared_toy(), toy_suite(*SITES), toy_prompts(5, 4), **SETTINGS)
    return analysis, discover(analysis)


def test_prompts_that_are_all_alike_give_the_same_circuit_on_every_draw():
    prompts = toy_prompts(3, 4)
    same = drawn(prompts, torch.zeros(3, dtype=torch.long))
    analysis = analysis_of(shared_toy(), toy_suite(*SITES), same, **SETTINGS)
    found = discover(analysis)
    config = StabilityConfig(resamples=5, reruns=1, estimators=("ig",))
    record = stability(analysis, found.graph, found.ranking, config)
    assert record["nodes"]["jaccard"]["value"] == 1
    assert record["nodes"]["between_draws"]["value"] == 1
    assert record["nodes"]["rank_correlation"]["value"] == pytest.approx(1)
    assert record["reruns"]["nodes"]["draws"] == [1]
    assert record["reruns"]["edges"]["draws"] == [1]
    assert all(row["share"] in (0, 1) for row in record["found"])


def test_the_record_is_what_the_draws_say(case):
    analysis, found = case
    config = StabilityConfig(resamples=7, reruns=1, seed=3)
    record = stability(analysis, found.graph, found.ranking, config)
    each = effects_of_each(analysis)
    size = sum(n.kind in ("feature", "error") for n in found.graph)
    assert record["size"] == size
    full = set(strongest(each.by_prompt.mean(0), size).tolist())
    values = []
    for share in drawn_shares(5, 7, seed=3):
        some = set(strongest(share @ each.by_prompt, size).tolist())
        values.append(len(some & full) / len(some | full))
    assert record["nodes"]["jaccard"]["value"] == pytest.approx(sum(values) / 7)
    assert 0 < record["nodes"]["jaccard"]["value"] < 1
    assert record["threshold"] == 0.8
    names = {name for pair in record["estimators"]["pairs"] for name in pair["estimators"]}
    assert names == {"ig", "ig-inputs", "patching", "relp"}


def test_estimators_that_the_run_does_not_allow_are_skipped_and_said():
    prompts = replace(toy_prompts(3, 4), patch=None)
    analysis = analysis_of(shared_toy(), toy_suite(*SITES), prompts, reference="zero", **SETTINGS)
    found = discover(analysis)
    config = StabilityConfig(resamples=3, reruns=0)
    record = stability(analysis, found.graph, found.ranking, config)
    assert "ig-inputs" in record["estimators"]["skipped"]
    assert record["reruns"]["nodes"] == {"value": None, "interval": None, "draws": []}


def test_jaccard_of_sets():
    a = torch.tensor([[True, True, False], [False, False, False]])
    b = torch.tensor([[True, False, True], [False, False, False]])
    assert jaccard(a, b).tolist() == [[pytest.approx(1 / 3), 0], [0, 1]]


def test_one_prompt_alone_is_refused(case):
    analysis, found = case
    lone = analysis.on(drawn(analysis.prompts, torch.tensor([0])))
    with pytest.raises(ValueError, match="one prompt alone"):
        stability(lone, found.graph, found.ranking)


TRANSCODERS = ("mlp_in.0-mlp_out.0", "mlp_in.2-mlp_out.2")
REPLACEMENT = {"method": "replacement", "nodes": 8}


def test_replacement_graphs_of_prompts_that_are_all_alike_are_the_same():
    same = drawn(toy_prompts(3, 4), torch.zeros(3, dtype=torch.long))
    analysis = analysis_of(shared_toy(), toy_suite(*TRANSCODERS), same, **REPLACEMENT)
    found = discover_by_method(analysis)
    config = StabilityConfig(resamples=5, reruns=1, estimators=("patching",))
    record = stability(analysis, found.graph, found.ranking, config)
    assert record["estimator"] == "linear paths"
    assert record["nodes"]["jaccard"]["value"] == 1
    assert record["reruns"]["nodes"]["value"] == record["reruns"]["edges"]["value"] == 1
    (pair,) = record["estimators"]["pairs"]
    assert pair["estimators"] == ["linear paths", "patching"]
    assert 0 < pair["jaccard"] <= 1
