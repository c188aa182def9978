"""Which nodes and edges are kept, and that they lead to the output."""

import networkx as nx
import pytest

from tests.circuits.discovery.replaced import EXACT, graph_of


def test_nodes_are_those_of_most_influence_and_lead_to_the_output(one):
    whole, kept = graph_of(one), graph_of(one, nodes=12)
    inner = [n for n in kept if n.kind in ("feature", "error")]
    ranked = sorted(
        (n for n in whole if n.kind in ("feature", "error")),
        key=lambda n: -whole.nodes[n]["influence"],
    )
    assert len(inner) == 12
    assert set(inner) == set(ranked[:12])
    (output,) = [n for n in kept if n.kind == "logit"]
    lead = nx.ancestors(kept, output)
    assert set(kept) - {output} == lead
    for s, t, weight in kept.edges(data="weight"):
        assert weight == pytest.approx(whole.edges[s, t]["weight"], abs=EXACT)
    meta = kept.graph
    assert meta["nodes_active"] == meta["nodes_kept"] + sum(meta["left_out"].values())
    share = sum(whole.nodes[n]["influence"] for n in inner)
    total = sum(whole.nodes[n]["influence"] for n in ranked)
    assert meta["influence_reached"] == pytest.approx(share / total, rel=1e-5)
    # Scores are of the whole graph.
    assert meta["replacement_score"] == whole.graph["replacement_score"]


def test_rules_of_selection_keep_what_they_say(one):
    whole = graph_of(one)
    influences = sorted(
        (d["influence"] for n, d in whole.nodes(data=True) if n.kind in ("feature", "error")),
        reverse=True,
    )
    by_threshold = graph_of(one, nodes=500, threshold=0.05)
    inner = [d for n, d in by_threshold.nodes(data=True) if n.kind in ("feature", "error")]
    assert len(inner) == sum(value >= 0.05 for value in influences)
    assert by_threshold.graph["left_out"]["below_threshold"] > 0
    by_share = graph_of(one, nodes=500, influence=0.8)
    count = by_share.graph["nodes_kept"]
    assert sum(influences[: count - 1]) < 0.8 * sum(influences) <= sum(influences[:count]) + 1e-9
    assert by_share.graph["left_out"]["little_influence"] > 0
