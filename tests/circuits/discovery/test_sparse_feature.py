"""Discovery and verification as wholes, on toys: what must not change the result, and what must."""

import dataclasses
from functools import partial

import networkx as nx
import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.choice import SPARE
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.graph import Node, as_json
from circuits.prompts import EncodedPrompts
from circuits.verification.faithfulness_curves import Scale
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.tokens import Batch
from saes.nodes import NodeSet
from tests.toys import (
    analysis_of,
    found_and_verified,
    full_suite,
    padded_on_the_left,
    shared_toy,
    toy_prompts,
    toy_suite,
)


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=5)


def shuffled(prompts: EncodedPrompts, order: list[int]) -> EncodedPrompts:
    assert prompts.patch is not None

    def take(batch: Batch) -> Batch:
        return Batch(tokens=batch.tokens[order], mask=batch.mask[order])

    return EncodedPrompts(
        tuple(prompts.prompts[i] for i in order),
        take(prompts.clean),
        take(prompts.patch),
        tuple(prompts.answer_ids[i] for i in order),
        tuple(prompts.wrong_ids[i] for i in order),
        prompts.columns,
    )


@pytest.mark.parametrize("estimator", ["patching", "ig", "exact"])
def test_batch_size_and_prompt_order_change_nothing(case, estimator):
    model, suite, prompts = case
    config = DiscoverConfig(estimator=estimator, nodes=25, batch_size=5, steps=3)
    first = discover(Analysis.of(model, suite, prompts, config)).graph
    other = discover(
        Analysis.of(
            model,
            suite,
            shuffled(prompts, [3, 1, 4, 0, 2]),
            dataclasses.replace(config, batch_size=2),
        )
    ).graph
    assert set(first) == set(other)
    for node in first:
        assert first.nodes[node]["effect"] == pytest.approx(other.nodes[node]["effect"], abs=1e-5)
    for u, v in set(first.edges) & set(other.edges):
        assert first[u][v]["weight"] == pytest.approx(other[u][v]["weight"], abs=1e-5)


def test_the_same_call_gives_the_same_file(case):
    model, suite, prompts = case
    config = DiscoverConfig(nodes=20, steps=2)
    first, second = (discover(Analysis.of(model, suite, prompts, config)) for _ in range(2))
    assert as_json(first.graph) == as_json(second.graph)


def test_as_many_nodes_as_asked_are_kept_beside_the_inputs_and_the_output(case):
    model, suite, prompts = case
    found = discover(analysis_of(model, suite, prompts, nodes=20, steps=2))
    kinds = [data["kind"] for _, data in found.graph.nodes(data=True)]
    assert sum(k in ("feature", "error") for k in kinds) == 20
    assert kinds.count("token") == 1
    assert kinds.count("logit") == 1
    candidates = [n for n, _ in found.ranking if n.kind != "token"][: 20 + SPARE]
    assert {n for n in found.graph if n.kind in ("feature", "error")} <= set(candidates)


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.5])
def test_every_node_lies_between_the_inputs_and_the_output(case, floor):
    model, suite, prompts = case
    config = DiscoverConfig(nodes=20, steps=2, edge_threshold=floor)
    graph = discover(Analysis.of(model, suite, prompts, config)).graph
    (output,) = (n for n in graph if n.kind == "logit")
    tokens = {n for n in graph if n.kind == "token"}
    assert nx.ancestors(graph, output) == set(graph) - {output}
    assert set.union(*(nx.descendants(graph, n) for n in tokens)) == set(graph) - tokens


def test_edges_run_upward_and_only_what_connects_a_node_is_weak(case):
    model, suite, prompts = case
    loose = DiscoverConfig(nodes=30, steps=2, edge_threshold=0.0)
    all_edges = discover(Analysis.of(model, suite, prompts, loose)).graph
    tight = dataclasses.replace(loose, edge_threshold=0.3)
    few = discover(Analysis.of(model, suite, prompts, tight)).graph
    assert 0 < few.number_of_edges() < all_edges.number_of_edges()
    strongest = max(abs(e) for n, e in few.nodes(data="effect") if n.kind in ("feature", "error"))
    for source, target, weight in few.edges(data="weight"):
        rivals = (
            [*all_edges.out_edges(source, data="weight")],
            [*all_edges.in_edges(target, data="weight")],
        )
        strongest_of = [max(abs(w) for _, _, w in edges) for edges in rivals]
        assert abs(weight) >= min(0.3 * strongest, *strongest_of)
    assert nx.is_directed_acyclic_graph(all_edges)


def test_without_a_patch_the_reference_is_zero_or_the_mean(case):
    model, suite, prompts = case
    unpaired = dataclasses.replace(prompts, patch=None)
    for reference in ("zero", "mean"):
        config = DiscoverConfig(estimator="patching", reference=reference, nodes=5)
        graph = discover(Analysis.of(model, suite, unpaired, config)).graph
        assert graph.graph["patch_metric"] is None
        assert sum(n.kind in ("feature", "error") for n in graph) == 5


def test_an_exact_graph_agrees_with_its_own_verification(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="exact", nodes=20)
    found, record = found_and_verified(model, suite, prompts, config)
    assert record["nodes"]["spearman"] == pytest.approx(1)
    assert record["nodes"]["slope"] == pytest.approx(1, abs=1e-6)
    assert record["nodes"]["sign_agreement"] == 1
    for node, data in found.graph.nodes(data=True):
        if node.kind != "logit":
            assert data["exact"] == pytest.approx(data["effect"], abs=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_graph_asked_to_be_faithful_is_so_as_it_stands(case, share):
    model, suite, prompts = case
    analysis = analysis_of(
        model, suite, prompts, estimator="patching", nodes=24, faithfulness=share
    )
    found = discover(analysis)
    kept = [n for n in found.graph if n.kind in ("feature", "error")]
    assert Scale.of(analysis, "mean").faithfulness([NodeSet.of(kept)]).values >= share
    assert len(kept) < 24
    inner = nx.ancestors(found.graph, next(n for n in found.graph if n.kind == "logit"))
    assert set(kept) <= inner


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_estimates_of_single_prompts_have_the_mean_that_was_found(case, positions):
    model, suite, prompts = case
    config = DiscoverConfig(nodes=25, steps=3, positions=positions, batch_size=2)
    found, record = found_and_verified(model, suite, prompts, config)
    estimates = {point["id"]: point["estimate"] for point in record["nodes"]["points"]}
    nodes = [n for n in found.graph if n.kind in ("feature", "error")]
    assert {str(n) for n in nodes} == set(estimates)
    for node in nodes:
        assert estimates[str(node)] == pytest.approx(found.graph.nodes[node]["effect"], abs=1e-6)
    low, high = record["nodes"]["intervals"]["slope"]
    assert low < record["nodes"]["slope"] < high


def test_exact_effects_come_with_edges_of_a_divergence_too(case):
    """The gradient of a divergence at the clean run is zero, so edges need one along a path."""
    model, suite, prompts = case
    config = DiscoverConfig(estimator="exact", metric="kl", nodes=15, steps=3)
    found, record = found_and_verified(model, suite, prompts, config)
    weights = [abs(w) for _, _, w in found.graph.edges(data="weight")]
    assert max(weights) > 0.1 * max(abs(e) for _, e in found.ranking)
    assert record["edges"]["all"]["spearman"] > 0.5
    assert record["metric"] == "kl"


def test_nodes_that_were_not_moved_to_a_patch_cannot_be_ablated_to_it(case):
    model, suite, prompts = case
    analysis = analysis_of(model, suite, prompts, estimator="patching", reference="zero", nodes=5)
    found = discover(analysis)
    with pytest.raises(ValueError, match="set to zero in this run, not to a patch"):
        verify(analysis, found.graph, found.ranking, config=VerifyConfig(to="patch"))


def test_a_circuit_is_held_against_prompts_it_was_not_found_on(case):
    model, suite, prompts = case
    analysis = analysis_of(model, suite, prompts, estimator="patching", nodes=10)
    found = discover(analysis)
    quick = VerifyConfig(level="quick")
    check = partial(verify, analysis, found.graph, found.ranking, config=quick)
    same = check(held_out=prompts)
    rows = same["curves"]["rows"]
    for name, row in same["held_out"]["rows"].items():
        if name != "random nodes":
            assert row["faithfulness"] == pytest.approx(rows[name]["faithfulness"], abs=1e-5)
    told = []
    with pytest.raises(ValueError, match="held-out prompts have 7 tokens and the run's 6"):
        check(held_out=toy_prompts(n=3, length=7), report=lambda *_: told.append(_))
    assert told == [], "it is refused before anything is measured"


def side_by_side(long: EncodedPrompts, short: EncodedPrompts) -> EncodedPrompts:
    """Pairs of two lengths as one set, the last tokens in one column."""
    short = padded_on_the_left(short, pad=long.clean.tokens.shape[1] - short.clean.tokens.shape[1])
    assert long.patch is not None
    assert short.patch is not None

    def join(a: Batch, b: Batch) -> Batch:
        return Batch(tokens=torch.cat([a.tokens, b.tokens]), mask=torch.cat([a.mask, b.mask]))

    return EncodedPrompts(
        (*long.prompts, *short.prompts),
        join(long.clean, short.clean),
        join(long.patch, short.patch),
        (*long.answer_ids, *short.answer_ids),
        (*long.wrong_ids, *short.wrong_ids),
        None,
    )


def test_prompts_lined_up_at_their_ends_have_the_nodes_of_both():
    """Positions of the shorter prompts move right by what they are shorter; means are of all."""
    model, suite = shared_toy(dtype=torch.float32), full_suite(torch.float32)
    long, short = toy_prompts(n=3, length=6), toy_prompts(n=2, length=4, seed=1)
    config = DiscoverConfig(estimator="ig", positions="end", nodes=20, steps=3)
    found, record = found_and_verified(model, suite, side_by_side(long, short), config)
    expected: dict[Node, float] = {}
    for prompts, shift in ((long, 0), (short, 2)):
        ranking = discover(
            Analysis.of(model, suite, prompts, dataclasses.replace(config, positions="keep"))
        ).ranking
        for node, effect in ranking:
            key = node._replace(position=node.position + shift)
            expected[key] = expected.get(key, 0.0) + effect * len(prompts) / 5
    assert dict(found.ranking).keys() == expected.keys()
    for node, effect in found.ranking:
        assert effect == pytest.approx(expected[node], abs=1e-4)
    nodes = record["nodes"]
    assert nodes["n"] + nodes["tokens"]["n"] == len(found.graph) - 1
    assert record["curves"]["rows"]["circuit"]["completeness"][-1] == pytest.approx(0, abs=1e-3)


def test_summed_positions_give_nodes_without_positions(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", positions="sum", nodes=10)
    graph = discover(Analysis.of(model, suite, prompts, config)).graph
    assert all(node.position is None for node in graph)
    assert Node("embed", "token") in graph


def test_summed_effects_are_the_sum_over_kept_positions():
    model, suite, prompts = shared_toy(), toy_suite("mlp_out.1", "resid_post.1"), toy_prompts(n=3)
    kept, summed = (
        discover(
            analysis_of(
                model, suite, prompts, estimator="patching", positions=positions, nodes=1000
            )
        )
        for positions in ("keep", "sum")
    )
    totals: dict[Node, float] = {}
    for node, effect in kept.ranking:
        key = node._replace(position=None)
        totals[key] = totals.get(key, 0.0) + effect
    assert totals.keys() == dict(summed.ranking).keys()
    for node, effect in summed.ranking:
        assert effect == pytest.approx(totals[node], abs=1e-9)


@pytest.mark.parametrize("field", ["nodes", "steps", "batch_size"])
def test_configuration_out_of_range_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 0: expected at least 1"):
        DiscoverConfig(**{field: 0})
