"""The check of a graph that was edited: nodes with and without their edges."""

import pytest

from circuits.ablation.edge_circuits import EdgeCircuit
from circuits.ablation.restricted_run import restricted_metric
from circuits.discovery.sparse_feature import discover
from circuits.edits.graph import merged, removed
from circuits.graph import Node
from circuits.verification.edited_circuit import verify_edited
from circuits.verification.verify import VerifyConfig
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts, toy_suite


def test_the_record_tells_nodes_from_nodes_with_their_edges(small_chunks):
    small_chunks("circuits.verification.edited_circuit.STRONGEST", 2)
    suite = toy_suite("mlp_out.0", "resid_post.1", "mlp_out.2")
    analysis = analysis_of(shared_toy(), suite, toy_prompts(2), nodes=10, estimator="patching")
    graph = discover(analysis).graph
    config = VerifyConfig(to="patch", draws=1)
    record = verify_edited(analysis, graph, config=config, held_out=toy_prompts(3, seed=5))
    whole = restricted_metric(analysis, EdgeCircuit.of(graph), "patch").mean()
    ends = record["full"], record["empty"]
    expected = (float(whole) - ends[1]) / (ends[0] - ends[1])
    assert record["rows"]["nodes and edges"]["faithfulness"] == pytest.approx(expected, abs=1e-4)
    assert record["edges"] == len(EdgeCircuit.of(graph).edges) <= record["possible_edges"]
    first = record["each_edge"][0]
    cut = removed(graph, edges=[(Node.parse(first["source"]), target_of(graph, first["target"]))])
    without = restricted_metric(analysis, EdgeCircuit.of(cut), "patch").mean()
    assert first["adds"] == pytest.approx(float(whole - without) / (ends[0] - ends[1]), abs=1e-4)
    assert record["held_out"]["n_prompts"] == 3
    group = merged(graph, [n for n in graph if n.kind == "feature"][:3], "three")
    again = verify_edited(analysis, group, config=VerifyConfig(to="patch", level="quick"))
    assert again["rows"]["nodes and edges"] == record["rows"]["nodes and edges"]
    assert again["each_edge"] == []


def target_of(graph, name):
    found = Node.parse(name)
    return next(n for n in graph if n.kind == "logit") if found.kind == "logit" else found


def test_an_edge_that_nothing_carries_is_told():
    analysis = analysis_of(
        shared_toy(), full_suite(), toy_prompts(2), nodes=8, estimator="patching"
    )
    graph = discover(analysis).graph
    late, early = Node("resid_post.2", 0, 1), Node("mlp_out.0", 0, 1)
    graph.add_edge(late, early, weight=1.0)
    record = verify_edited(analysis, graph, config=VerifyConfig(to="patch", level="quick"))
    assert record["edges_that_carry_nothing"] == [[str(late), str(early)]]
