"""Edits made of features, graphs and files of nodes; from Python and on the command line."""

from dataclasses import replace

import networkx as nx
import pytest
import torch

import circuits
from circuits.ablation.faithfulness import metric_with
from circuits.discovery.ranking import rank_nodes
from circuits.edits.make import Change, edit_of, edit_outside, strongest, with_means
from circuits.graph import Node
from circuits.results import Circuit
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from saes.edit import Edit, applied
from saes.edit_words import in_words
from saes.nodes import NodeSet
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts, toy_suite

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def analysis():
    prompts = toy_prompts(3)
    return analysis_of(
        shared_toy(), full_suite(), prompts, positions="keep", batch_size=2, estimator="patching"
    )


def graph_of(*nodes, **meta):
    graph = nx.DiGraph(**meta)
    for rank, node in enumerate(nodes):
        graph.add_node(node, kind=node.kind, effect=-1.0 / (rank + 1), label="")
    return graph


A, B = Node(SITE, 3, 2), Node("mlp_out.0", 5, 1)
GRAPH = graph_of(A, Node(SITE, "error", 4), B, Node("embed", "token", 1), Node("logit", "x"))


def test_the_strongest_features_are_edited_where_they_stand(analysis):
    made = edit_of(strongest(GRAPH, 2), analysis.suite, Change(do="scale", value=0.5))
    assert [op.node for op in made.operations] == [A, B]
    assert {op.value for op in made.operations} == {0.5}
    everywhere = edit_of(GRAPH, analysis.suite, Change(positions="all"))
    assert [op.node.position for op in everywhere.operations] == [None, None]
    with pytest.raises(ValueError, match="the graph has 2 features: expected --top 1 to 2"):
        strongest(GRAPH, 3)


def test_error_terms_are_kept_or_dropped_by_choice(analysis):
    kept, dropped = (
        edit_of(GRAPH, analysis.suite, Change(do="set", value=1.0, errors=errors))
        for errors in ("keep", "drop")
    )
    assert [op.node.kind for op in kept.operations] == ["feature"] * 2
    errors = [op for op in dropped.operations if op.node.kind == "error"]
    assert {(str(op.node), op.do) for op in errors} == {
        (f"{SITE}/error@4", "zero"),
        ("mlp_out.0/error", "zero"),
    }
    assert in_words(kept)[1] == "error terms stay as they are"


def test_all_outside_a_graph_is_what_verify_leaves_of_it(analysis):
    """With the errors dropped an edit to zero or the mean leaves m(C), where no token is spared."""
    whole = replace(analysis, config=replace(analysis.config, positions="sum", reference="zero"))
    nodes = (Node(SITE, 3), Node(SITE, 7), Node("mlp_out.0", 5), Node("attn_out.2", "error"))
    for do in ("zero", "mean"):
        made = with_means(edit_outside(nodes, analysis.suite, Change(do=do, errors="drop")), whole)
        with made.applied(whole), torch.no_grad():
            batch = whole.prompts.clean
            logits = whole.model(batch.tokens, attention_mask=batch.mask.long())[:, -1]
        found = whole.metric(logits, torch.arange(len(batch)))
        expected = metric_with(whole, NodeSet.of(nodes), do)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_means_are_those_of_the_position_where_a_node_has_one(analysis):
    made = with_means(edit_of([A, Node(SITE, 4)], analysis.suite, Change(do="mean")), analysis)
    with capture(analysis.model, [Site.parse(SITE)]) as seen, torch.no_grad():
        analysis.model(analysis.prompts.patch.tokens)
    f = analysis.suite[SITE].encode(seen[Site.parse(SITE)]).dense()
    assert made.means[A] == pytest.approx(float(f[:, 2, 3].mean()))
    assert made.means[Node(SITE, 4)] == pytest.approx(float(f[..., 4].mean()))


def test_from_python_an_edit_holds_for_logits_generation_and_probes(analysis, tmp_path):
    circuit = Circuit(analysis, GRAPH, rank_nodes(analysis)[0])
    made = circuits.edit(circuit, top=2, do="add", value=3.0, positions="all")
    made.save(tmp_path / "edit.json")
    again = Edit.load(tmp_path / "edit.json")
    tokens, site = analysis.prompts.clean.tokens, Site("resid_post", 2)

    def run(block):
        with block, capture(analysis.model, [site]) as seen, torch.no_grad():
            logits = analysis.model.original_model(tokens).logits
            text = analysis.model.original_model.generate(
                tokens, max_new_tokens=5, do_sample=False, pad_token_id=0
            )
        return logits, text, seen[site].mean(1)

    one, other = (
        run(block)
        for block in (again.applied(analysis), applied(analysis.model, analysis.suite, made))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    named = circuits.edit(analysis, f"{SITE}/3,mlp_out.0/5", do="add", value=3.0)
    assert named.operations == made.operations
    with pytest.raises(ValueError, match="say what to edit"):
        circuits.edit(analysis)
    with pytest.raises(ValueError, match="are of a circuit, and this is an analysis"):
        circuits.edit(analysis, top=3)


def test_positions_from_the_end_are_not_taken_for_positions_from_the_start(analysis):
    graph = graph_of(A, positions="end", prompt_lengths=[4, 6])
    circuit = Circuit(analysis, graph, rank_nodes(analysis)[0])
    with pytest.raises(ValueError, match="counted from the last token"):
        circuits.edit(circuit, top=1)
    assert circuits.edit(circuit, top=1, positions="last").operations[0].node == Node(SITE, 3)


@pytest.mark.parametrize(
    ("node", "message"),
    [("mlp_out.0/99", "has features 0 to"), ("mlp_out.9/1", "no dictionary for mlp_out.9/1")],
)
def test_a_node_that_the_suite_lacks_is_refused(node, message):
    with pytest.raises(ValueError, match=message):
        edit_of([Node.parse(node)], toy_suite("mlp_out.0"))
