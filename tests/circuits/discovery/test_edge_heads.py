"""The paths of a replacement graph's edges: what they add up to, and what their factors are."""

from contextlib import contextmanager

import networkx as nx
import numpy as np
import pytest
import torch

from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.metrics.readout import Readout
from circuits.prompts import EncodedPrompts
from hooked_qwen.sites import Site
from saes.suite import Suite
from tests.circuits.discovery.replaced import (
    analysis,
    graph_of,
    rows_of,
    speaking,
    unanswered,
)
from tests.limits import set_size
from tests.toys import toy_prompts
from tests.transcoders.toys import cross_layer_suite, suite_of, toy_of
from transcoders.attention import edge_by_head

ROUNDED = 2e-6
"Numbers of edges have seven digits."


@pytest.fixture(scope="module")
def prompts() -> EncodedPrompts:
    return toy_prompts(n=3, length=4)


@pytest.fixture(scope="module")
def one(prompts) -> EncodedPrompts:
    return rows_of(prompts, [0])


@contextmanager
def listing(*, share, most):
    """Which heads of an edge are listed is set three calls below what makes a graph."""
    with pytest.MonkeyPatch.context() as patch:
        set_size(patch, "circuits.discovery.edge_heads.SHARE", share)
        set_size(patch, "circuits.discovery.edge_heads.MOST", most)
        yield


@pytest.fixture(scope="module")
def uncut(prompts, one):
    """Graphs in which every head of an edge is listed."""
    with listing(share=2.0, most=1000):
        return {
            "each": [graph_of(one), *(graph_of(rows_of(prompts, [i])) for i in (1, 2))],
            "set": graph_of(prompts),
            "summed": graph_of(one, positions="sum"),
            "set, summed": graph_of(prompts, positions="sum", nodes=25),
        }


def sizes(data) -> float:
    return abs(data["direct"]) + sum(map(abs, data["heads"].values())) + abs(data["rest"])


def check_sums(graph: nx.DiGraph) -> None:
    for _, _, data in graph.edges(data=True):
        parts = data["direct"] + sum(data["heads"].values()) + data.get("other_heads", 0.0)
        total = parts + data["rest"]
        assert data["weight"] == pytest.approx(total, abs=ROUNDED * sizes(data))


CASES = {
    "a prompt": lambda p: graph_of(rows_of(p, [0])),
    "a set": graph_of,
    "lined up": lambda p: graph_of(p, positions="end"),
    "summed": lambda p: graph_of(p, positions="sum"),
    "cross-layer, own answers": lambda p: graph_of(
        unanswered(rows_of(p, [0]), speaking("qwen2")),
        Suite(cross_layer_suite(), {}),
        speaking("qwen2"),
    ),
    "a probe of many tokens": lambda p: graph_of(
        p,
        metric=Readout(
            site=Site("resid_post", 1),
            direction=torch.linspace(-1, 1, 24, dtype=torch.float64),
            position="mean",
        ),
    ),
    "delta nets": lambda p: graph_of(
        rows_of(p, [0]), Suite(suite_of([0, 1, 2]), {}), toy_of("qwen3.5")
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_direct_heads_and_rest_are_the_weight(prompts, case):
    """`rest` is what is missing where two heads may come after each other, else it is 0."""
    graph = CASES[case](prompts)
    check_sums(graph)
    single = [data for _, _, data in graph.edges(data=True) if data["rest"] == 0]
    assert len(single) > 20
    assert any(data["rest"] for _, _, data in graph.edges(data=True))
    assert any(data["heads"] for data in single) or case == "delta nets"


def test_every_edge_between_features_is_what_one_alone_is(one, uncut):
    asked = analysis(one)
    graph = uncut["each"][0]
    (opened,) = ReplacedPrompts(asked)
    model = opened.model
    number = {}
    for source in range(len(model.sources)):
        if (dictionary := int(model.sources.dictionary[source])) >= 0:
            key = (int(model.sources.feature[source]), int(model.sources.position[source]))
            number[(model.names[dictionary], *key)] = source
    features = [(s, t) for s, t in graph.edges if s.kind == "feature" and t.kind == "feature"]
    assert len(features) > 100
    for s, t in features[::13]:
        expected = edge_by_head(model, number[tuple(s)], number[tuple(t)])
        data = graph.edges[s, t]
        assert data["direct"] == pytest.approx(expected.direct, rel=ROUNDED, abs=1e-12)
        heads = {str(h).removeprefix("head "): w for h, w in expected.heads.items() if w}
        assert data["heads"] == pytest.approx(heads, rel=ROUNDED, abs=1e-12)
        assert data["rest"] == pytest.approx(expected.rest, abs=ROUNDED * sizes(data))


def test_of_a_set_paths_are_means_and_of_summed_positions_sums(uncut):
    each, together, summed = uncut["each"], uncut["set"], uncut["summed"]
    checked = 0
    for s, t, data in together.edges(data=True):
        if t.kind == "logit":
            continue
        there = [g.edges[s, t] for g in each if g.has_edge(s, t)]
        assert data["direct"] == pytest.approx(
            sum(d["direct"] for d in there) / 3, rel=1e-6, abs=4e-6
        )
        for head in data["heads"]:
            mean = sum(d["heads"].get(head, 0.0) for d in there) / 3
            assert data["heads"][head] == pytest.approx(mean, rel=1e-6, abs=4e-6)
            checked += len(there) > 1
    assert checked > 20
    total: dict = {}
    for s, t, data in each[0].edges(data=True):
        found = total.setdefault((s._replace(position=None), t._replace(position=None)), {})
        for head, weight in data["heads"].items():
            found[head] = found.get(head, 0.0) + weight
    for s, t, data in summed.edges(data=True):
        for head, weight in data["heads"].items():
            assert weight == pytest.approx(total[s, t][head], rel=1e-6, abs=4e-6)


def test_factors_multiply_to_their_path_and_one_is_the_same_in_every_prompt(uncut):
    """The part of the weights knows no prompt and no token."""
    graphs = [*uncut["each"], uncut["set"], uncut["set, summed"]]
    of_weights: dict = {}
    for graph in graphs:
        for s, t, data in graph.edges(data=True):
            for name, factors in data["factors"].items():
                path = data["direct"] if name == "direct" else data["heads"][name]
                product = factors["prompt"] * factors["weights"]
                assert product == pytest.approx(path, rel=ROUNDED, abs=1e-12)
                if s.kind == t.kind == "feature":
                    pair = (s.site, s.feature, t.site, t.feature, name)
                    of_weights.setdefault(pair, []).append(factors["weights"])
            if s.kind == "error":
                assert not data["factors"]
            elif s.kind == "feature" and data["heads"]:
                assert data["heads"].keys() <= data["factors"].keys()
    several = [found for found in of_weights.values() if len(found) > 2]
    assert len(several) > 50
    for found in several:
        assert np.ptp(found) <= 1e-5 * max(map(abs, found))


def test_what_is_of_the_prompt_is_activation_pattern_and_norms(one, uncut):
    (opened,) = ReplacedPrompts(analysis(one))
    layers, checked = opened.model.frozen.layers, 0
    graph = uncut["each"][0]
    activation = {n: float(d["activation"] or 0) for n, d in graph.nodes(data=True)}
    for s, t, data in graph.edges(data=True):
        for name, factors in data["factors"].items():
            if s.kind != "feature" or t.kind != "feature":
                continue
            read = layers[int(t.site.split(".")[1])].norm.per_rms[t.position]
            expected = float(read) * activation[s]
            if name != "direct":
                layer, head = map(int, name.split("."))
                mixer = layers[layer].mixer
                taken = float(mixer.pattern.flatten(0, 1)[head, t.position, s.position])
                assert factors["pattern"] == pytest.approx(taken, rel=ROUNDED)
                expected *= taken * float(mixer.per_rms[s.position])
            assert factors["prompt"] == pytest.approx(expected, rel=ROUNDED)
            checked += 1
    assert checked > 50


def test_listed_are_the_fewest_heads_that_hold_the_share(one, uncut):
    with listing(share=0.95, most=3):
        some = graph_of(one)
    counts = set()
    for s, t, data in uncut["each"][0].edges(data=True):
        found, listed = some.edges[s, t], list(some.edges[s, t]["heads"])
        every = list(map(abs, data["heads"].values()))
        assert every == sorted(every, reverse=True)
        assert listed == list(data["heads"])[: len(listed)]
        counts.add(len(listed))
        enough = sum(every[: len(listed)]) >= 0.95 * sum(every) * (1 - 1e-6)
        assert enough or len(listed) == 3
        if listed:
            assert sum(every[: len(listed) - 1]) < 0.95 * sum(every) * (1 + 1e-6)
        others = sum(list(data["heads"].values())[len(listed) :])
        assert found.get("other_heads", 0.0) == pytest.approx(others, rel=1e-6, abs=4e-6)
    assert counts >= {1, 2, 3}


def test_heads_have_the_influence_of_the_edges_that_run_through_them(uncut):
    for graph in (uncut["set"], uncut["set, summed"]):
        found, total = {}, sum(i for *_, i in graph.edges(data="influence"))
        for _, _, data in graph.edges(data=True):
            for name, weight in {
                **data["heads"],
                **{k: data[k] for k in ("direct", "rest")},
            }.items():
                share = data["influence"] * abs(weight) / sizes(data) / total
                found[name] = found.get(name, 0.0) + share
        heads = graph.graph["heads"]
        assert heads["direct"] == pytest.approx(found.pop("direct"), rel=1e-4)
        assert heads["rest"] == pytest.approx(found.pop("rest"), rel=1e-4, abs=1e-5)
        assert heads["influence"] == pytest.approx(found, rel=1e-4)
        assert list(heads["influence"].values()) == sorted(heads["influence"].values())[::-1]
        assert sum(found.values()) > 0.1
        assert heads["layers_without_heads"] == []


def test_an_edges_influence_is_its_targets_by_share(uncut):
    """Where nothing was left out, a node's influence is that of the edges it leaves by."""
    graph = uncut["set"]
    for node, data in graph.nodes(data=True):
        if node.kind != "logit":
            out = sum(i for *_, i in graph.out_edges(node, data="influence"))
            assert out == pytest.approx(data["influence"], rel=1e-5, abs=1e-9)


def test_delta_nets_have_no_heads(one):
    graph = graph_of(one, Suite(suite_of([0, 1, 2]), {}), toy_of("qwen3.5"))
    assert graph.graph["heads"]["layers_without_heads"] == [0, 1, 2]
    assert {h.split(".")[0] for h in graph.graph["heads"]["influence"]} == {"3"}
    gated = [d for *_, d in graph.edges(data=True) if d["heads"]]
    assert gated
    assert not any(d["factors"].keys() & d["heads"].keys() for d in gated)


def test_edges_in_parts_are_the_same(prompts, small_chunks):
    whole = graph_of(prompts, positions="sum", nodes=25)
    small_chunks("circuits.discovery.edge_heads.NUMBERS_AT_ONCE", whole.number_of_edges() * 3)
    parts = graph_of(prompts, positions="sum", nodes=25)
    for s, t, data in whole.edges(data=True):
        for name in ("direct", "heads", "rest"):
            assert parts.edges[s, t][name] == pytest.approx(data[name], rel=1e-5, abs=1e-9)
    assert parts.graph["heads"]["influence"] == pytest.approx(whole.graph["heads"]["influence"])
