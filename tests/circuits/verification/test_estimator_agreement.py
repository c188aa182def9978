"""How well estimates agree with what was measured: figures of known numbers, and laws of them."""

import networkx as nx
import pytest
import torch
from scipy import stats

from circuits.graph import Node
from circuits.verification.estimator_agreement import (
    DRAWN,
    STRONGEST,
    agreement,
    edge_agreement,
    edges_to_measure,
    node_agreement,
)


def test_exact_zeros_have_no_sign():
    """They are counted apart: one is neither right nor wrong."""
    estimate = torch.tensor([[1.0], [-2.0], [3.0], [0.0]], dtype=torch.float64)
    exact = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [-5.0, -7.0], [1.0, 2.0]])
    figures = agreement(estimate, exact.double())
    assert figures["zeros"] == 2
    assert figures["sign_agreement"] == 0.5
    none = agreement(estimate, torch.zeros(4, 2))
    assert (none["zeros"], none["sign_agreement"]) == (4, None)
    assert none["intervals"]["sign_agreement"] is None


@pytest.mark.parametrize("seed", range(5))
def test_every_interval_holds_its_own_value(seed):
    """Effects about zero change their signs and ranks in the draws more often than in the mean."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(60, 1, generator=generator).double() ** 3
    exact = means + torch.randn(60, 12, generator=generator).double()
    estimate = means + 0.1 * torch.randn(60, 1, generator=generator).double()
    for figures in (agreement(estimate, exact), agreement(exact + estimate, exact)):
        for name, ends in figures["intervals"].items():
            assert ends[0] <= figures[name] <= ends[1]


def test_agreement_of_known_numbers():
    estimate = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    exact = torch.tensor([[1.0, 3.0], [-1.0, -1.0], [5.0, 7.0]], dtype=torch.float64)
    figures = agreement(estimate.unsqueeze(1), exact)
    assert figures["spearman"] == pytest.approx(1)
    assert figures["slope"] == pytest.approx((2 + 2 + 18) / 14, rel=1e-6)
    assert figures["sign_agreement"] == 1
    ends = [((1 + 2 + 15) / 14), ((3 + 2 + 21) / 14)]
    assert figures["intervals"]["slope"] == pytest.approx(ends)
    assert figures["intervals"]["spearman"] == pytest.approx([1, 1])
    assert agreement(exact[:2], exact[:2])["spearman"] is None
    assert agreement(exact, -exact)["sign_agreement"] == 0
    assert agreement(2 * exact, exact)["intervals"]["slope"] == pytest.approx([0.5, 0.5])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("power", [1, 3])
def test_ranks_do_not_see_how_estimates_are_bent(power):
    """Spearman is of the order alone; ties share the mean of their ranks."""
    estimate, exact = drawn(30, 1), drawn(30, 1, seed=1)
    estimate[:5] = estimate[5]
    found = agreement(estimate**power, exact)["spearman"]
    assert found == pytest.approx(float(stats.spearmanr(estimate, exact).statistic), abs=1e-6)
    assert agreement(exact**3, exact)["spearman"] == pytest.approx(1)
    assert agreement(-exact, exact)["spearman"] == pytest.approx(-1)


def test_figures_are_of_the_means_over_prompts():
    """Prompts that cancel in the mean cancel in the figures, whatever each of them says."""
    mean, noise = drawn(20, 1), 100 * drawn(20, 1, seed=1)
    exact = torch.cat([mean + noise, mean - noise], 1)
    found = agreement(mean, exact)
    assert found["spearman"] == pytest.approx(1)
    assert found["slope"] == pytest.approx(1)
    assert found["sign_agreement"] == 1


def test_a_figure_that_does_not_exist_is_null():
    """Of an estimate that is zero everywhere there is no slope, no order and no sign."""
    exact = drawn(5, 3)
    found = agreement(torch.zeros(5, 3), exact)
    assert (found["spearman"], found["slope"], found["sign_agreement"]) == (None, None, None)
    assert found["zeros"] == 5
    assert set(found["intervals"].values()) == {None}


def test_one_prompt_has_figures_and_no_intervals():
    found = agreement(drawn(6, 1), drawn(6, 1, seed=1))
    assert found["spearman"] is not None
    assert set(found["intervals"].values()) == {None}


NODES = [
    Node("embed", "token", 1),
    Node("resid_post.0", 3, 1),
    Node("mlp_out.0", "error", 2),
    Node("mlp_out.0", 4, 2),
    Node("mlp_out.0", 5, 0),
    Node("embed", "token", 2),
]


def test_tokens_stand_apart_and_every_other_node_is_a_point_of_its_site():
    estimates, exact = drawn(6, 4), drawn(6, 4, seed=1)
    found = node_agreement(NODES, estimates, exact)
    inner, of_mlp = [1, 2, 3, 4], [2, 3, 4]
    assert {k: found[k] for k in ("n", *agreement(exact, exact))} == {
        "n": 4,
        **agreement(estimates[inner], exact[inner]),
    }
    assert found["tokens"] == {"n": 2, **agreement(estimates[[0, 5]], exact[[0, 5]])}
    assert list(found["by_site"]) == ["mlp_out.0", "resid_post.0"], "in the order of the forward"
    assert found["by_site"]["mlp_out.0"] == {"n": 3, **agreement(estimates[of_mlp], exact[of_mlp])}
    assert found["n_prompts"] == 4
    assert [point["id"] for point in found["points"]] == [str(NODES[i]) for i in inner]
    for point, i in zip(found["points"], inner, strict=True):
        assert point["estimate"] == pytest.approx(float(estimates[i].mean()), abs=1e-6)
        assert point["exact"] == pytest.approx(float(exact[i].mean()), abs=1e-6)


def graph_of(n):
    """Edges of the weights 1, -2, 3, ... in an order of their own."""
    graph = nx.DiGraph()
    weights = [(i + 1) * (-1) ** i for i in range(n)]
    for i in sorted(range(n), key=lambda i: i * 7919 % 10007):
        source, target = Node("mlp_out.0", i, 0), Node("resid_post.1", i, 0)
        graph.add_edge(source, target, weight=float(weights[i]))
    return graph


def sizes(graph, edges):
    return [abs(graph.edges[e]["weight"]) for e in edges]


def test_the_strongest_edges_are_measured_and_others_at_random():
    graph = graph_of(2 * (STRONGEST + DRAWN))
    edges, strongest = edges_to_measure(graph, seed=0)
    assert strongest == STRONGEST
    assert len(set(edges)) == len(edges) == STRONGEST + DRAWN
    assert (
        sizes(graph, edges[:strongest]) == sorted(sizes(graph, graph.edges))[: -STRONGEST - 1 : -1]
    )
    assert edges_to_measure(graph, seed=0) == (edges, strongest)
    other, _ = edges_to_measure(graph, seed=1)
    assert other[:strongest] == edges[:strongest]
    assert set(other) != set(edges)


@pytest.mark.parametrize("n", [0, 3, STRONGEST, STRONGEST + 2])
def test_a_small_graph_is_measured_whole(n):
    graph = graph_of(n)
    edges, strongest = edges_to_measure(graph, seed=0)
    assert set(edges) == set(graph.edges)
    assert strongest == min(n, STRONGEST)


def test_edges_agree_by_part_and_every_one_is_a_point():
    graph = graph_of(STRONGEST + 10)
    edges, strongest = edges_to_measure(graph, seed=0)
    weights = torch.tensor([graph.edges[e]["weight"] for e in edges], dtype=torch.float64)
    exact = torch.stack([2 * weights, 4 * weights], 1)
    exact[strongest:] *= -1
    found = edge_agreement(graph, edges, strongest, exact)
    assert (found["strongest"]["slope"], found["random"]["slope"]) == pytest.approx((3, -3))
    assert (found["strongest"]["sign_agreement"], found["random"]["sign_agreement"]) == (1, 0)
    assert found["all"]["n"] == len(found["points"]) == len(edges)
    for point, (source, target), weight in zip(found["points"], edges, weights, strict=True):
        assert (point["source"], point["target"]) == (str(source), str(target))
        assert abs(point["exact"]) == pytest.approx(3 * abs(float(weight)))
    assert "random" not in edge_agreement(graph, edges[:3], 3, exact[:3]), (
        "of none there is nothing"
    )
