"""Replacement graphs on toys: every number against a dense or an interventional oracle."""

import json
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch

import circuits
from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.methods import discover_by_method
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from circuits.graph import Node, as_json
from circuits.metrics.answers import with_own_answers
from circuits.metrics.readout import Readout
from circuits.prompts import EncodedPrompts
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite
from tests.toys import (
    padded_on_the_left,
    shared_toy,
    speaking_toy,
    toy_prompts,
    toy_suite,
)
from tests.transcoders.toys import cross_layer_suite
from transcoders.sources import FEATURE

EXACT, MODELS = 1e-10, 1e-5
LENGTH = 4
SITES = ("mlp_in.0-mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_in.2-mlp_out.2")


def rows_of(prompts: EncodedPrompts, rows: list[int]) -> EncodedPrompts:
    take = torch.tensor(rows)
    return replace(
        prompts,
        prompts=tuple(prompts.prompts[i] for i in rows),
        clean=prompts.clean.rows(take),
        patch=None if prompts.patch is None else prompts.patch.rows(take),
        answer_ids=tuple(prompts.answer_ids[i] for i in rows),
        wrong_ids=tuple(prompts.wrong_ids[i] for i in rows),
    )


def analysis(prompts, suite=None, model=None, **config):
    config = {"method": "replacement", "nodes": None, "reference": "zero", **config}
    model, suite = model or shared_toy(), suite or toy_suite(*SITES)
    return Analysis.of(model, suite, prompts, DiscoverConfig(**config))


def graph_of(prompts, suite=None, model=None, **config):
    return discover_replacement(analysis(prompts, suite, model, **config)).graph


def speaking(family="qwen3"):
    """A toy model with a tokenizer."""
    return speaking_toy(family)


def unanswered(prompts, model):
    """The same without answers: the model's own take their place."""
    n = len(prompts)
    nothing = replace(prompts, answer_ids=((),) * n, wrong_ids=((),) * n)
    return with_own_answers(model, nothing)


@pytest.fixture(scope="module")
def prompts():
    return toy_prompts(n=3, length=LENGTH)


@pytest.fixture(scope="module")
def one(prompts):
    return rows_of(prompts, [0])


def check_sums(graph):
    targets = [n for n, data in graph.nodes(data=True) if "pre_activation" in data]
    assert {node.kind for node in targets} == {"feature", "logit"}
    for node in targets:
        data = graph.nodes[node]
        incoming = sum(weight for _, _, weight in graph.in_edges(node, data="weight"))
        # Numbers of nodes are rounded as the file has them.
        assert data["pre_activation"] == pytest.approx(data["bias"] + incoming, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("positions", ["keep", "end", "sum"])
@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_incoming_weights_and_bias_are_the_pre_activation(prompts, positions, rows):
    check_sums(graph_of(rows_of(prompts, rows), positions=positions))


def test_so_they_are_of_cross_layer_transcoders_and_several_answers(one):
    suite = Suite(cross_layer_suite(), {})
    model = speaking("qwen2")
    graph = graph_of(unanswered(one, model), suite, model)
    assert {n.site for n in graph if n.kind == "feature"} == {"clt.0", "mlp_out.1"}
    check_sums(graph)


def dense(graph):
    """Nodes in order, and W[t, s]."""
    nodes = sorted(graph, key=str)
    weights = nx.to_numpy_array(graph, nodelist=nodes, weight="weight").T
    return nodes, weights


def test_edges_are_autograd_through_the_frozen_maps(one):
    """Of one forward pass of all sources, each with a factor of its own."""
    asked = analysis(one)
    graph = discover_replacement(asked).graph
    (opened,) = ReplacedPrompts(asked)
    model, sources = opened.model, opened.model.sources
    factor = torch.ones(len(sources), dtype=torch.float64, requires_grad=True)
    writes = {Site("embed"): (model.recorded.embed * factor[: model.n_tokens, None]).unsqueeze(1)}
    for layer, written in enumerate(sources.layers):
        site = Site("mlp_out", layer)
        rows = written.rows(site, model.dictionaries) * factor[written.source, None]
        whole = torch.zeros_like(model.recorded.embed).index_add(0, written.position, rows)
        writes[site] = whole.unsqueeze(1)
    pushed = model.frozen.push(writes)
    node = {int(key): n for key, n in zip(opened.key, _nodes(asked, opened), strict=True)}
    checked = 0
    for t in range(len(sources)):
        if sources.dictionary[t] < 0:
            continue
        of = model.dictionaries[int(sources.dictionary[t])]
        read = pushed.mlp_in[of.source.layer][sources.position[t], 0]
        pre = read @ of.W_enc[sources.feature[t]]
        (grad,) = torch.autograd.grad(pre, factor, retain_graph=True)
        for s in range(len(sources)):
            if int(opened.key[s]) < 0:
                continue
            ends = node[int(opened.key[s])], node[int(opened.key[t])]
            found = graph.edges[ends]["weight"] if graph.has_edge(*ends) else 0.0
            assert found == pytest.approx(float(grad[s]), abs=EXACT)
            checked += found != 0
    outputs = graph.in_degree(next(n for n in graph if n.kind == "logit"))
    assert checked == graph.number_of_edges() - outputs


def _nodes(asked, opened):
    names = ReplacedPrompts(asked).names
    return NodeEffects(names, opened.key, torch.zeros(len(opened.key))).nodes()


@contextmanager
def frozen(model, tokens):
    """The model itself with patterns, norms and MLP outputs held at their values for `tokens`."""
    kept, handles = {}, ExitStack()

    def scale(_norm, args, output):
        kept.setdefault(_norm, output.detach() / args[0].detach())
        return args[0] * kept[_norm]

    def pattern(hook, _args, output):
        return kept.setdefault(hook, output.detach())

    def constant(mlp, _args, output):
        return kept.setdefault(mlp, output.detach())

    with handles:
        for block in model.blocks:
            for norm in (block.ln1, block.ln2):
                hook = norm.original_component.register_forward_hook(scale)
                handles.callback(hook.remove)
            handles.callback(block.attn.hook_pattern.register_forward_hook(pattern).remove)
            hook = block.mlp.original_component.register_forward_hook(constant)
            handles.callback(hook.remove)
        hook = model.ln_final.original_component.register_forward_hook(scale)
        handles.callback(hook.remove)
        model(tokens)
        yield


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_doubling_a_feature_in_the_frozen_model_moves_what_reads_it_by_its_edges(one, family):
    """An intervention on the model itself, in float32."""
    model, suite = shared_toy(family, torch.float32), toy_suite(*SITES, dtype=torch.float32)
    graph = graph_of(one, suite, model)
    tokens, reads = one.clean.tokens, [Site("mlp_in", layer) for layer in range(3)]
    features = [n for n in graph if n.kind == "feature"]
    with torch.no_grad(), frozen(model, tokens):
        with capture(model, reads) as seen:
            model(tokens)
            before = dict(seen)
        for source in features[::7]:
            dictionary = suite[source.site]
            row = dictionary.W_dec[source.feature] * graph.nodes[source]["activation"]

            def double(x, row=row, at=source.position):
                x = x.clone()
                x[0, at] += row
                return x

            with intervene(model, {Site.parse(source.site): double}), capture(model, reads) as seen:
                model(tokens)
                after = dict(seen)
            for target in features:
                of, at = suite[target.site], target.position
                ends = (x[of.source][0, at] @ of.W_enc[target.feature] for x in (before, after))
                low, high = map(float, ends)
                edge = graph.edges.get((source, target), {"weight": 0.0})["weight"]
                assert edge == pytest.approx(high - low, abs=MODELS * max(abs(low), abs(high), 1))


def linear_solution(graph):
    """Influence, both scores and effects by solving the dense system."""
    nodes, weights = dense(graph)
    kind = np.array([n.kind for n in nodes])
    own = np.array([graph.nodes[n]["influence"] if n.kind == "logit" else 0.0 for n in nodes])
    size = np.abs(weights)
    total = size.sum(1, keepdims=True)
    A = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    influence = np.linalg.solve(np.eye(len(nodes)) - A.T, own)
    inner = np.where(kind == "logit", 0.0, influence)
    errors, tokens = inner[kind == "error"].sum(), inner[kind == "token"].sum()
    by_errors = A[:, kind == "error"].sum(1)
    completeness = ((1 - by_errors) * influence).sum() / influence.sum()
    activation = np.array([graph.nodes[n]["activation"] or 1.0 for n in nodes])
    per_unit = weights / np.where(kind == "feature", activation, 1.0)[:, None]
    totals = np.linalg.solve(np.eye(len(nodes)) - per_unit.T, own)
    return nodes, influence, tokens / (tokens + errors), completeness, totals


@pytest.mark.parametrize("answers", ["given", "own"])
def test_influence_scores_and_effects_solve_the_dense_system(one, answers):
    model = speaking()
    graph = graph_of(one if answers == "given" else unanswered(one, model), None, model)
    nodes, influence, replacement, completeness, totals = linear_solution(graph)
    assert graph.graph["replacement_score"] == pytest.approx(replacement, rel=1e-6)
    assert graph.graph["completeness_score"] == pytest.approx(completeness, rel=1e-6)
    for node, share, total in zip(nodes, influence, totals, strict=True):
        data = graph.nodes[node]
        assert data["influence"] == pytest.approx(share, rel=1e-6, abs=1e-12)
        if node.kind != "logit":
            # The reference is zero: what the node adds is taken away.
            assert data["effect"] == pytest.approx(-total, rel=1e-5, abs=1e-6)


def test_of_a_pair_effects_are_of_moving_to_the_patch(one):
    to_zero = graph_of(one)
    to_patch = graph_of(one, reference="patch")
    assert one.patch is not None
    there = graph_of(replace(one, clean=one.patch, patch=None))
    for node in to_zero:
        if node.kind != "feature":
            continue
        data, activation = to_patch.nodes[node], to_zero.nodes[node]["activation"]
        moved = (there.nodes[node]["activation"] if node in there else 0.0) - activation
        slope = -to_zero.nodes[node]["effect"] / activation
        assert data["effect"] == pytest.approx(moved * slope, rel=1e-9, abs=1e-12)
    # What is the same in both does not move: all before the token that differs.
    assert to_patch.nodes[Node("embed", "token", 0)]["effect"] == 0
    assert to_patch.nodes[Node("embed", "token", 1)]["effect"] != 0
    (output,) = [n for n in to_patch if n.kind == "logit"]
    meta = to_patch.graph
    assert to_patch.nodes[output]["exact"] == pytest.approx(
        meta["patch_metric"] - meta["clean_metric"], rel=1e-6
    )


def test_the_models_own_answers_are_outputs_with_their_probability(one):
    model = speaking()
    graph = graph_of(unanswered(one, model), None, model)
    outputs = [n for n in graph if n.kind == "logit"]
    logits = model(one.clean.tokens)[0, -1]
    p = logits.softmax(-1)
    held = sum(graph.nodes[n]["probability"] for n in outputs)
    assert len(outputs) == 10 or held >= 0.95
    assert sum(graph.nodes[n]["influence"] for n in outputs) == pytest.approx(1, rel=1e-6)
    likeliest = p.topk(len(outputs))
    found = sorted((graph.nodes[n]["probability"] for n in outputs), reverse=True)
    assert found == pytest.approx(likeliest.values.tolist(), rel=1e-5)
    values = sorted(graph.nodes[n]["pre_activation"] for n in outputs)
    expected = sorted((logits[likeliest.indices] - logits.mean()).tolist())
    assert values == pytest.approx(expected, rel=MODELS, abs=MODELS)


def test_a_logit_difference_and_a_log_probability_are_read_at_their_value(one):
    for metric in ("logit-difference", "log-probability"):
        graph = graph_of(one, metric=metric)
        (output,) = [n for n in graph if n.kind == "logit"]
        data = graph.nodes[output]
        assert data["pre_activation"] == pytest.approx(graph.graph["clean_metric"], rel=MODELS)


@pytest.mark.parametrize(("site", "at"), [("mlp_out.1", 2), ("mlp_out.2", None)])
def test_a_feature_can_be_what_a_graph_leads_to(one, site, at):
    suite = toy_suite(*SITES)
    whole = graph_of(one, suite)
    last = LENGTH - 1 if at is None else at
    target = next(n for n in whole if n.site == site and n.position == last and n.kind == "feature")
    text = f"feature:{site}/{target.feature}" + ("" if at is None else f"@{at}")
    graph = graph_of(one, suite, metric=text)
    (output,) = [n for n in graph if n.kind == "logit"]
    # Its inputs are those that it has as a node, and its pre-activation is its own.
    for source, _, weight in graph.in_edges(output, data="weight"):
        assert weight == pytest.approx(whole.edges[source, target]["weight"], rel=1e-9)
    assert graph.in_degree(output) == whole.in_degree(target)
    found = graph.nodes[output]["pre_activation"]
    assert found == pytest.approx(whole.nodes[target]["pre_activation"], rel=MODELS)


@pytest.mark.parametrize("position", [None, 2, "mean"])
@pytest.mark.parametrize("site", ["resid_post.1", "resid_pre.2", "mlp_in.1"])
def test_a_probe_can_be_what_a_graph_leads_to(one, site, position):
    direction = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    probe = Readout(site=Site.parse(site), direction=direction, bias=0.5, position=position)
    graph = graph_of(one, metric=probe)
    check_sums(graph)
    (output,) = [n for n in graph if n.kind == "logit"]
    model = shared_toy()
    with capture(model, {Site.parse(site)}) as seen:
        model(one.clean.tokens)
    x = seen[Site.parse(site)][0]
    at = {None: x[-1], 2: x[2], "mean": x.mean(0)}[position]
    expected = float(at @ direction) + 0.5
    assert graph.nodes[output]["pre_activation"] == pytest.approx(expected, rel=MODELS, abs=MODELS)


def test_a_prompt_set_has_means_and_the_spread_of_each_edge(prompts):
    together = graph_of(prompts)
    each = [graph_of(rows_of(prompts, [i])) for i in range(3)]
    ends = {edge for graph in each for edge in graph.edges}
    assert {(s, t) for s, t in together.edges if t.kind != "logit"} == {
        (s, t) for s, t in ends if t.kind != "logit"
    }
    for s, t in ends:
        if t.kind == "logit":
            continue
        weights = [g.edges.get((s, t), {"weight": 0.0})["weight"] for g in each]
        found = together.edges[s, t]
        assert found["weight"] == pytest.approx(np.mean(weights), rel=1e-9, abs=1e-12)
        assert found["spread"] == pytest.approx(np.std(weights, ddof=1), rel=1e-5, abs=1e-7)
    for node in together:
        if node.kind != "logit":
            values = [g.nodes[node]["influence"] if node in g else 0.0 for g in each]
            assert together.nodes[node]["influence"] == pytest.approx(np.mean(values), rel=1e-5)
    assert "spread" not in next(iter(each[0].edges(data=True)))[2]


def test_summed_positions_are_one_node_with_the_edges_of_all(one):
    apart, summed = graph_of(one), graph_of(one, positions="sum")
    expected: dict = {}
    for s, t, weight in apart.edges(data="weight"):
        pair = (s._replace(position=None), t._replace(position=None))
        expected[pair] = expected.get(pair, 0.0) + weight
    assert set(summed.edges) <= set(expected)
    for pair, weight in expected.items():
        found = summed.edges.get(pair, {"weight": 0.0})["weight"]
        assert found == pytest.approx(weight, abs=1e-9)


def test_padding_on_the_left_changes_nothing(prompts):
    model, suite = shared_toy(dtype=torch.float32), toy_suite(*SITES, dtype=torch.float32)
    plain = graph_of(prompts, suite, model, positions="end")
    padded = graph_of(padded_on_the_left(prompts), suite, model, positions="end")
    moved = {n._replace(position=n.position + 3) if n.position is not None else n for n in plain}
    assert moved == set(padded)


def text_of(graph):
    return json.dumps(as_json(graph))


@pytest.mark.parametrize("nodes", [15, None])
def test_batch_sizes_and_room_give_the_same_bytes(prompts, nodes):
    texts = {
        text_of(graph_of(prompts, nodes=nodes, batch_size=batch_size))
        for batch_size in (1, 64, 512)
    }
    # In 3 KB a sweep takes one target at a time.
    suite = Suite(toy_suite(*SITES), {}, memory=5e-5)
    texts.add(text_of(graph_of(prompts, suite, nodes=nodes)))
    assert len(texts) == 1


def test_no_more_edges_are_there_than_one_sweep_may_have(one):
    """A quarter of a quarter of the memory, in bytes."""
    memory, room = 5e-5, 3125
    (opened,) = ReplacedPrompts.of_transcoders(analysis(one))
    model = opened.model
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    groups = list(model.grouped(features, room))
    assert torch.cat(groups).sort().values.tolist() == features.tolist()
    sizes = [(model.inputs(model.features(some)).weight.nbytes, len(some)) for some in groups]
    assert all(size <= room or targets == 1 for size, targets in sizes)
    assert max(targets for _, targets in sizes) > 1
    sweeps = []
    for most in (None, memory):
        told = []
        asked = analysis(one, Suite(toy_suite(*SITES), {}, memory=most), nodes=10)
        discover_replacement(asked, report=lambda what, *_, to=told: to.append(what))
        sweeps.append(told.count("influence"))
    assert sweeps[1] > 2 * sweeps[0]


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


def test_features_beyond_the_budget_count_as_errors(one):
    whole, some = graph_of(one), graph_of(one, targets=6)
    meta = some.graph
    assert meta["features_traced"] <= 6
    assert meta["features_not_traced"] > 0
    assert any("were not traced (6 are at most)" in line for line in meta["notices"])
    assert meta["replacement_score"] < whole.graph["replacement_score"]
    assert meta["completeness_score"] < whole.graph["completeness_score"]
    # The last layer's features come first, and their influence is that of the whole graph.
    for node in some:
        if node.site == "mlp_out.2":
            assert some.nodes[node]["influence"] == whole.nodes[node]["influence"]


def test_ranking_has_every_feature_and_error_by_effect(one):
    found = discover_by_method(analysis(one))
    effects = [abs(effect) for _, effect in found.ranking]
    assert effects == sorted(effects, reverse=True)
    inner = {n for n in found.graph if n.kind in ("feature", "error")}
    assert set(found.ranking.nodes()) == inner
    assert found.norm_outliers["tokens"] == LENGTH


def test_saes_of_a_suite_are_left_aside(one):
    suite = toy_suite(*SITES, "resid_post.1", "attn_out.2")
    graph = graph_of(one, suite)
    assert {n.site for n in graph if n.kind == "feature"} == {f"mlp_out.{i}" for i in range(3)}
    assert text_of(graph) == text_of(graph_of(one))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"reference": "mean"}, "moving a node to the patch or to zero, not to the mean"),
        ({"estimator": "exact"}, "estimator is 'exact', which is of sparse feature graphs"),
        ({"faithfulness": 0.9}, "faithfulness is 0.9, which is of sparse feature graphs"),
        ({"method": "sparse-feature"}, "all nodes are kept of a replacement graph only"),
        ({"targets": 0}, "targets is 0: expected at least 1"),
        ({"metric": "kl"}, "the metric has no gradient at this prompt"),
        ({"reference": "patch"}, "the prompts have no patch to move nodes to"),
    ],
)
def test_what_cannot_be_done_is_one_line(one, config, message):
    with pytest.raises(ValueError, match=message) as error:
        graph_of(replace(one, patch=None), **config)
    assert "\n" not in str(error.value)


def test_in_a_notebook_too_its_features_are_ablated(one):
    found = circuits.discover(analysis(one, model=speaking()))
    left = circuits.ablate(found, top=1)
    (output,) = [data for node, data in left.graph.nodes(data=True) if node.kind == "logit"]
    assert left.graph.graph["method"] == "replacement"
    assert output["activation"] == pytest.approx(left.record["after"], abs=MODELS)


@pytest.mark.parametrize("site", ["attn_out.1", "resid_pre.0"])
def test_a_probe_of_what_is_no_part_of_the_stream_is_refused(one, site):
    probe = Readout(site=Site.parse(site), direction=torch.ones(24).double())
    with pytest.raises(ValueError, match=r"a replacement graph cannot lead to|no circuit of it"):
        graph_of(one, metric=probe)
