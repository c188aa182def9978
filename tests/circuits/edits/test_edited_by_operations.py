"""The graph under an edit of any operation: pinned nodes stand still, the others keep effects."""

import dataclasses
import gc

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import RecordedRun
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import effects_by_prompt, gradients_at_clean
from circuits.comparison import differences
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablation import Ablation
from circuits.edits.edited import edited_analysis, edited_states, graph_left
from circuits.edits.patch import patch_values
from circuits.graph import as_json
from circuits.metrics.readout import Readout
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.edit import Condition, Edit, Operation, applied
from saes.suite import Suite
from tests.circuits.dense import dense, nodes_that_move
from tests.circuits.test_several_sites import cross_layer, crosscoder, dictionary
from tests.toys import (
    analysis_of,
    full_suite,
    padded_on_the_left,
    shared_toy,
    toy_hf,
    toy_prompts,
)

EXACT = {"rtol": 0.0, "atol": 1e-10}
CHANGED = 1
"The position at which clean and patch prompts differ."


def edit_of(*operations):
    return Edit(operations=tuple(Operation(**op) for op in operations))


@pytest.fixture(scope="module")
def analysis():
    found = analysis_of(
        shared_toy(), full_suite(), toy_prompts(n=4), estimator="patching", nodes=30
    )
    assert not any(x.any() for state in found.states for x in state.outlier.values())
    return found


@pytest.fixture(scope="module")
def before(analysis):
    return discover(analysis).graph


def numbers(graph):
    """Every number of a graph, by node and by edge."""
    record = as_json(graph)
    found = {n["id"]: (n["effect"] or 0.0, n["activation"] or 0.0) for n in record["nodes"]}
    edges = {(e["source"], e["target"]): (e["weight"],) for e in record["edges"]}
    return {**found, **edges}


def assert_same(a, b):
    first, second = numbers(a), numbers(b)
    assert first.keys() == second.keys()
    for key, values in first.items():
        assert values == pytest.approx(second[key], abs=1e-10, rel=1e-6), key


def features_of(graph, n):
    return [node for node in graph if node.kind == "feature"][:n]


@pytest.mark.parametrize(
    ("to", "estimator"),
    [("zero", "patching"), ("patch", "patching"), ("patch", "ig"), ("zero", "ig-inputs")],
)
def test_operations_that_pin_leave_the_graph_of_the_equal_ablation(analysis, before, to, estimator):
    cut = (*features_of(before, 4), Node("resid_post.1", 4), Node("mlp_out.2", "error", 4))
    config = DiscoverConfig(estimator=estimator, nodes=25, steps=2, batch_size=32)
    asked = analysis.asked(config)
    edit = edit_of(*({"node": node, "do": to} for node in cut))
    found, expected = (
        graph_left(asked, what, before) for what in (edit, Ablation(ablated=cut, to=to))
    )
    assert_same(found, expected)
    assert {n: found.nodes[n].get("ablated") for n in found} == {
        n: expected.nodes[n].get("ablated") for n in expected
    }


def test_everything_but_a_circuit_at_zero_leaves_the_graph_of_the_equal_ablation(analysis, before):
    kept = tuple(node for node in before if node.kind in ("feature", "error"))
    operations = []
    for name in analysis.suite:
        besides = tuple(
            dict.fromkeys(
                n._replace(position=None) for n in kept if n[:2][0] == name and n.kind == "feature"
            )
        )
        operations.append({"node": Node(name, "*"), "do": "zero", "besides": besides})
    everywhere = tuple(
        dict.fromkeys(n._replace(position=None) for n in kept if n.kind == "feature")
    )
    errors = tuple(Node(str(site), "error") for site in analysis.suite.writes)
    found = graph_left(analysis, edit_of(*operations), before)
    expected = graph_left(analysis, Ablation(kept=(*everywhere, *errors)), before)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("do", "value", "reference"),
    [("scale", 1.0, "patch"), ("add", 0.0, "zero"), ("add", 0.0, "mean")],
)
def test_an_edit_that_moves_nothing_leaves_the_graph_of_before(do, value, reference):
    analysis = analysis_of(
        shared_toy(),
        full_suite(),
        toy_prompts(n=4),
        estimator="patching",
        nodes=30,
        reference=reference,
    )
    before = discover(analysis).graph
    nodes = [*features_of(before, 3), Node("resid_post.1", "*"), Node("attn_out.2", 3)]
    assert_same(
        graph_left(
            analysis, edit_of(*({"node": n, "do": do, "value": value} for n in nodes)), before
        ),
        before,
    )


@pytest.fixture(scope="module")
def linear():
    """Blocks that add nothing, two dictionaries on the stream whose features are always on."""
    hf = toy_hf()
    for layer in hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    width = hf.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    made = {}
    for layer in (0, 1):
        site = Site("resid_post", layer)
        weights = {
            "W_enc": torch.randn(12, width, generator=generator, dtype=torch.float64) / 4,
            "b_enc": torch.full((12,), 100.0, dtype=torch.float64),
            "W_dec": torch.randn(12, width, generator=generator, dtype=torch.float64) / 4,
            "b_dec": torch.zeros(width, dtype=torch.float64),
        }
        spec = DictionarySpec(source=site, target=site, architecture="relu")
        made[str(site)] = SparseDictionary(spec, weights)
    direction = torch.linspace(-1, 1, width, dtype=torch.float64)
    config = DiscoverConfig(
        metric=Readout(site=Site("resid_post", 2), direction=direction, position=CHANGED),
        estimator="patching",
        batch_size=3,
        nodes=200,
        edge_threshold=0.0,
    )
    return Analysis.of(hook(hf, name="linear"), Suite(made, {}), toy_prompts(n=4), config)


def middle(analysis, node):
    """Between what a feature is on the clean and on the patch prompts, so that a clamp cuts."""
    state = dense(analysis.states[0], node.site)
    ends = state.f[0, CHANGED, node.feature], state.reference[0, CHANGED, node.feature]
    return float(sum(ends) / 2)


def edits(analysis):
    """One of each operation, and of all together, with errors and a condition."""
    a, b, c, d = (Node("resid_post.1", i) for i in range(4))
    early, half = Node("resid_post.0", 2), middle(analysis, c)
    single = {
        "zero": {"node": a, "do": "zero"},
        "set": {"node": a, "do": "set", "value": 3.0, "positions": (CHANGED, 4)},
        "patch": {"node": a, "do": "patch"},
        "scale": {"node": b, "do": "scale", "value": -2.5},
        "add": {"node": a, "do": "add", "value": 7.0},
        "clamp": {"node": c, "do": "clamp", "value": (half, 1e9)},
        "scaled error": {"node": Node("resid_post.1", "error"), "do": "scale", "value": 4.0},
        "every feature": {"node": Node("resid_post.1", "*"), "do": "scale", "value": 0.5},
        "every feature moved": {"node": Node("resid_post.0", "*"), "do": "add", "value": 0.5},
        "earlier": {"node": early, "do": "scale", "value": 3.0},
        "on condition": {
            "node": d, "do": "set", "value": 50.0,
            "when": Condition(node=early, above=middle(analysis, early)),
        },
    }  # fmt: skip
    return {name: edit_of(op) for name, op in single.items()} | {"all": edit_of(*single.values())}


EDITS = (
    "zero", "set", "patch", "scale", "add", "clamp", "scaled error", "every feature",
    "every feature moved", "earlier", "on condition", "all",
)  # fmt: skip


def metric_under(analysis, edit, prompts):
    """By runs under the edit that know nothing of states."""
    patch = None
    model, site = analysis.model, Site("resid_post", 2)
    if any(op.needs == "patch" for op in edit.operations):
        patch = patch_values(analysis, edit)
    with (
        applied(model, analysis.suite, edit, patch=patch, must_fire=False),
        capture(model, [site]) as seen,
    ):
        last_logits(model, prompts.clean)
    return seen[site][:, CHANGED] @ analysis.config.metric.direction


@pytest.mark.parametrize("name", EDITS)
def test_effects_of_the_nodes_left_add_up_to_what_the_patch_does_under_the_edit(linear, name):
    edit, prompts = edits(linear)[name], linear.prompts
    edited = edited_analysis(linear, edit)
    ranking, _ = rank_nodes(edited)
    of_last = sum(effect for node, effect in ranking if node.site == "resid_post.1")
    clean = metric_under(linear, edit, prompts)
    patch = metric_under(linear, edit, dataclasses.replace(prompts, clean=prompts.patch))
    assert abs(float((patch - clean).mean())) > 0.01
    assert of_last == pytest.approx(float((patch - clean).mean()), abs=1e-10)


@pytest.mark.parametrize("name", EDITS)
def test_estimates_are_exact_and_edges_into_a_node_add_up_to_its_effect(linear, name):
    """A feature answers what it reads as far as the operations let it: a secant of them."""
    edit = edits(linear)[name]
    edited = edited_analysis(linear, edit)
    state = edited.states[0]
    nodes = [n for n in nodes_that_move(edited, state) if n.position == CHANGED]
    g = gradients_at_clean(edited, state)
    estimates, exact = (
        effects_by_prompt(edited, state, g, nodes),
        exact_effects(edited, state, nodes),
    )
    if name not in ("clamp", "all"):
        # To a clamp downstream an estimate is of first order.
        torch.testing.assert_close(estimates, exact, **EXACT)
    weights = edge_weights(edited, state, g, nodes)
    last = [i for i, n in enumerate(nodes) if n.site == "resid_post.1"]
    conditioned = {Node("resid_post.1", 3, CHANGED)} if name in ("on condition", "all") else set()
    for i in last:
        if nodes[i] in conditioned:
            continue
        into = sum(w for (_, target), w in weights.items() if target == nodes[i])
        assert into == pytest.approx(float(estimates[i].sum()), abs=1e-9), nodes[i]


@pytest.mark.parametrize("width", [0, 3])
def test_effects_are_those_of_moving_a_node_where_it_stands(width):
    """By whole runs of the model under the edit, padded too, with the tensor of a site moved.

    The condition is on what has run before the node that is moved.
    """
    model, suite, prompts = (
        shared_toy(dtype=torch.float32),
        full_suite(torch.float32),
        toy_prompts(n=3),
    )
    if width:
        prompts = padded_on_the_left(prompts, width)
    analysis = analysis_of(model, suite, prompts, estimator="patching")
    at, site = CHANGED + width, Site("resid_post", 1)
    plain = dense(analysis.states[0], site)
    on = plain.change[:, at].abs().sum(0).topk(3).indices.tolist()
    watched = Node("resid_post.0", int(dense(analysis.states[0], "resid_post.0").f[0, at].argmax()))
    edit = edit_of(
        {"node": Node(str(site), on[0]), "do": "scale", "value": 2.0},
        {"node": Node(str(site), on[1], CHANGED), "do": "add", "value": 1.5},
        {"node": Node(str(site), on[2]), "do": "clamp", "value": (-0.1, 0.2)},
        {"node": Node("attn_out.2", 7), "do": "set", "value": 5.0,
         "when": Condition(node=watched, above=0.01)},
    )  # fmt: skip
    (state,) = edited_states(analysis, edit)
    become = (lambda f: 2 * f, lambda f: f + 1.5, lambda f: f.clamp(-0.1, 0.2))
    nodes = [Node(str(site), i, at) for i in on]
    found = exact_effects(analysis, state, nodes)
    f, moved = plain.f[:, at], plain.reference[:, at]
    for node, effects, do in zip(nodes, found, become, strict=True):
        i = int(node.feature)
        change = (do(moved[:, i]) - do(f[:, i])).unsqueeze(-1) * suite[site].W_dec[i]

        def add(value, change=change):
            value = value.clone()
            value[:, at] += change
            return value

        logits = []
        for edits_of_site in ({}, {site: add}):
            with applied(model, suite, edit, must_fire=False), intervene(model, edits_of_site):
                logits.append(last_logits(model, prompts.clean))
        gap = analysis.metric(logits[1], state.rows) - analysis.metric(logits[0], state.rows)
        assert gap.abs().max() > 1e-4
        torch.testing.assert_close(effects.float(), gap, atol=1e-5, rtol=1e-4)


def test_no_effect_where_a_node_is_pinned_and_the_graph_says_what_was_done(analysis, before):
    cut, pushed = features_of(before, 2)
    edit = edit_of(
        {"node": cut._replace(position=None), "do": "set", "value": 0.25},
        {"node": pushed, "do": "scale", "value": 0.5},
    )
    asked = analysis.asked(DiscoverConfig(estimator="patching", nodes=300))
    left = graph_left(asked, edit, before)
    of_cut = [n for n in left if n[:2] == cut[:2]]
    assert of_cut
    assert all(left.degree(n) == 0 and left.nodes[n]["ablated"] == "set" for n in of_cut)
    assert left.nodes[pushed]["edited"] == f"multiplied by 0.5 at position {pushed.position}"
    assert left.nodes[pushed]["effect"] != 0
    assert left.graph["edit"][0].startswith("1 feature of")
    rows = {row.node: row.status for row in differences(before, left)}
    assert {rows[n] for n in of_cut} == {"ablated"}


def test_a_node_that_is_pinned_at_some_tokens_only_is_not_marked(analysis):
    of = analysis.model, analysis.suite, analysis.prompts
    summed = analysis_of(*of, estimator="patching", nodes=30, positions="sum")
    before = discover(summed).graph
    some, other = features_of(before, 2)
    edit = edit_of({"node": some, "do": "zero", "positions": "last"}, {"node": other, "do": "zero"})
    left = graph_left(summed, edit, before)
    assert [left.nodes[n].get("ablated") for n in (some, other) if n in left][-1] == "zero"
    assert some not in left or not left.nodes[some].get("ablated")


def test_dictionaries_of_several_sites_and_runs_that_begin_after_what_they_read():
    """Estimators start in the middle of the model, where a cross-layer one has read already."""
    hf = toy_hf()
    width = hf.config.hidden_size
    post = Site("resid_post", 0)
    spec = DictionarySpec(source=post, target=post, architecture="relu")
    made = [*(cross_layer(layer, width) for layer in range(3)), dictionary(spec, 3, width)]
    suite = Suite({d.name: d for d in made}, {})
    config = DiscoverConfig(estimator="ig", nodes=8, steps=1)
    analysis = Analysis.of(hook(hf, name="toy"), suite, toy_prompts(n=2), config)
    before = discover(analysis).graph
    cut = (Node("clt.0", 1), Node("clt.1", 3, CHANGED))
    ablated = graph_left(analysis, Ablation(ablated=cut), before)
    edit = edit_of(*({"node": node, "do": "zero"} for node in cut))
    assert_same(graph_left(analysis, edit, before), ablated)


def test_what_cannot_be_done_is_refused(analysis, before):
    def left(edit, of=analysis):
        graph_left(of, edit, before)

    never = Condition(node=Node("resid_post.0", 3), above=1e9)
    with pytest.raises(RuntimeError, match="fired on nothing.*wants resid_post.0/3 above"):
        left(edit_of({"node": Node("mlp_out.2", 3), "do": "zero", "when": never}))
    without = dataclasses.replace(analysis.prompts, patch=None)
    alone = analysis_of(analysis.model, analysis.suite, without, reference="zero")
    with pytest.raises(ValueError, match="the prompts have no patch"):
        left(edit_of({"node": Node("mlp_out.2", 3), "do": "patch"}), alone)
    with pytest.raises(ValueError, match="feature numbers mean nothing in another suite"):
        left(
            dataclasses.replace(
                edit_of({"node": Node("mlp_out.2", 3), "do": "zero"}), suite="other"
            )
        )
    width = toy_hf().config.hidden_size
    crossing = Suite({"crosscoder.0-1": crosscoder(width)}, {})
    other = analysis_of(analysis.model, crossing, analysis.prompts)
    edit = edit_of({"node": Node("resid_post.0", "error"), "do": "zero"})
    with pytest.raises(ValueError, match="before all that it reads has run"):
        left(edit, other)


def test_norm_outliers_that_an_edit_leaves_stand_as_in_the_equal_ablation(analysis):
    """The first token is made one by its embedding; an ablation leaves it, and so may an edit."""
    hf = toy_hf()
    first = analysis.prompts.clean.tokens[:, 0]
    hf.model.embed_tokens.weight.data[first] *= 300
    of = hook(hf, name="toy"), full_suite(), analysis.prompts
    parked = analysis_of(*of, estimator="patching", nodes=40, reference="zero")
    before = discover(parked).graph
    limits = parked.norm_limits
    on = dense(parked.states[0], "resid_post.0").f[:, 0].sum(0).topk(4).indices.tolist()
    cut = tuple(Node("resid_post.0", i) for i in on)
    assert any(x[:, 0].any() for x in parked.states[0].outlier.values())
    operations = []
    for node in cut:
        sites = {*parked.suite.reads_of(node.site), *parked.suite.writes_of(node.site)}
        below = tuple((site, limits[site]) for site in sites)
        operations.append({"node": node, "do": "zero", "norm_below": below})
    found = graph_left(parked, edit_of(*operations), before)
    assert_same(found, graph_left(parked, Ablation(ablated=cut), before))
    at_all = edit_of(*({"node": node, "do": "zero"} for node in cut))
    assert numbers(found) != numbers(graph_left(parked, at_all, before))


def test_a_state_does_not_keep_the_runs_that_it_was_made_from(analysis):
    """What it holds is counted; whole runs behind it would not be."""

    def runs():
        gc.collect()
        return sum(isinstance(each, RecordedRun) for each in gc.get_objects())

    there = runs()
    edit = edit_of({"node": Node("resid_post.1", 4), "do": "zero"})
    kept = [
        edited_states(analysis, what)[0]
        for what in (edit, Ablation(ablated=(Node("mlp_out.1", 7),)))
    ]
    assert kept[0].logits.shape == kept[1].logits.shape
    assert runs() == there
