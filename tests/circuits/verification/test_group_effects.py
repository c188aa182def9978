"""Effects of groups: against those of single nodes, and against plainly added changes."""

import networkx as nx
import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.attribution.deltas import node_deltas
from circuits.attribution.forward import metric_with_deltas
from circuits.graph import Node, ordered
from circuits.render.pages.circuit.document import groups_on_page
from circuits.verification.group_effects import group_scores, joint_effects
from circuits.verification.verify import VerifyConfig, verify
from tests.circuits.dense import nodes_that_move
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=5)


@pytest.mark.parametrize("positions", ["keep", "sum"])
@pytest.mark.parametrize("reference", ["patch", "mean", "zero"])
def test_a_group_of_one_does_what_its_node_does(case, reference, positions):
    analysis = analysis_of(*case, reference=reference, positions=positions, batch_size=3)
    state = analysis.states[0]
    nodes = [n for n in nodes_that_move(analysis, state) if n.kind != "token"][::60]
    assert {node.kind for node in nodes} == {"feature", "error"}
    alone = torch.cat([exact_effects(analysis, s, nodes) for s in analysis.states], 1)
    told = []
    together = joint_effects(analysis, [[node] for node in nodes], report=told.append)
    assert alone.abs().max() > 0.01
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert sum(told) == len(nodes) * len(analysis.states)


def test_features_of_one_site_move_by_the_sum_of_their_changes(case):
    analysis = analysis_of(*case)
    (state,) = analysis.states
    some = [n for n in nodes_that_move(analysis, state) if n.site == "mlp_out.0"]
    group = [n for n in some if n.kind == "feature"][:6]
    deltas = {site: d.sum(0) for site, d in node_deltas(analysis.suite, state, group).items()}
    clean = analysis.metric(state.logits, state.rows)
    expected = metric_with_deltas(analysis, state, deltas, state.every_row) - clean
    (found,) = joint_effects(analysis, [group])
    alone = exact_effects(analysis, state, group).sum(0)
    assert (found - alone).abs().max() > 1e-3
    torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=0)


def test_a_score_has_the_joint_effect_its_interval_and_the_sum_of_the_members():
    a, b, c = (Node("mlp_out.0", i, 0) for i in range(3))
    graph = nx.DiGraph()
    for node, exact in ((a, -1.0), (b, 0.25), (c, 2.0)):
        graph.add_node(node, exact=exact)
    effects = torch.tensor([[-1.0, -2.0, -3.0, -2.0], [4.0, 4.0, 4.0, 4.0]]).double()
    first, second = group_scores(graph, [[a, b], [c]], effects)
    assert (first["effect"], first["sum"]) == (-2.0, -0.75)
    assert first["members"] == [str(a), str(b)]
    assert first["interval"][0] < -2.0 < first["interval"][1] < 0
    assert (second["effect"], second["interval"]) == (4.0, [4.0, 4.0])
    (lone,) = group_scores(graph, [[a]], torch.tensor([[1.0]]).double())
    assert lone["interval"] is None


def test_every_group_that_the_page_suggests_is_ablated(case):
    from circuits.discovery.sparse_feature import discover

    analysis = analysis_of(*case, nodes=40, estimator="patching")
    found = discover(analysis)
    alike = [node for node in ordered(found.graph) if node.kind == "feature"][:4]
    cards = {f"{n.site}/{n.feature}": {"promoted": [[" are", 1.0]]} for n in alike}
    groups = groups_on_page(found.graph, cards)
    assert any(set(alike) <= set(group) for group in groups)
    record = verify(
        analysis, found.graph, found.ranking,
        config=VerifyConfig(level="quick", draws=1), groups=groups,
    )  # fmt: skip
    assert [row["members"] for row in record["groups"]] == [[str(n) for n in g] for g in groups]
    for row, group in zip(record["groups"], groups, strict=True):
        (effects,) = joint_effects(analysis, [group])
        assert row["effect"] == pytest.approx(float(effects.mean()), abs=1e-5)
        members = sum(found.graph.nodes[node]["exact"] for node in group)
        assert row["sum"] == pytest.approx(members, abs=1e-5)
