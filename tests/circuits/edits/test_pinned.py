"""The replacement graph that an ablation leaves: the edited model's, without the ablated nodes."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from circuits.ablation.faithfulness import metric_with
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from circuits.edits.ablation import Ablation
from circuits.edits.edited import edited_analysis, edited_states, graph_left
from circuits.edits.pinned import pinned_by
from circuits.graph import Node, as_json
from circuits.metrics.metric import on_clean
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite
from tests.toys import padded_on_the_left, shared_toy, toy_prompts, toy_suite
from tests.transcoders.toys import cross_layer_suite, suite_of
from transcoders.sources import written_rows

EXACT, MODELS = 1e-10, 1e-5
"Of sums, and of frozen norms beside the model's, which are float32."
SITES = ("mlp_in.0-mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_in.2-mlp_out.2")


def analysis_of(suite=None, prompts=None, **config):
    config = {"method": "replacement", "nodes": None, "reference": "zero", **config}
    prompts = toy_prompts(n=2, length=4) if prompts is None else prompts
    return Analysis.of(shared_toy(), suite or toy_suite(*SITES), prompts, DiscoverConfig(**config))


@pytest.fixture(scope="module")
def analysis():
    return analysis_of()


@pytest.fixture(scope="module")
def before(analysis):
    return discover_replacement(analysis).graph


def strongest(graph, kinds=("feature",), n=3):
    nodes = [node for node in graph if node.kind in kinds]
    return tuple(sorted(nodes, key=lambda node: -abs(graph.nodes[node]["effect"]))[:n])


def to_patch(analysis):
    """As `ablate` asks: ablation to the patch takes the values of each prompt's own."""
    return replace(analysis, config=replace(analysis.config, reference="patch"))


def edit_of(graph, to):
    """Features of several layers and an error, each at its position."""
    error = next(n for n in graph if n.kind == "error" and n.site == "mlp_out.1" and n.position)
    return Ablation(ablated=(*strongest(graph), error), to=to)


def test_what_no_prompt_has_leaves_the_graph_as_it_was(analysis, before):
    on = {(n.site, n.feature) for n in before if n.kind == "feature"}
    absent = next(i for i in range(99) if ("mlp_out.1", i) not in on)
    left = graph_left(analysis, Ablation(ablated=(Node("mlp_out.1", absent),)), before)
    del left.graph["ablation"]
    assert as_json(left) == as_json(before)


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_incoming_weights_and_bias_are_the_pre_activation(analysis, before, to):
    edit = edit_of(before, to)
    left = graph_left(analysis, edit, before)
    for node, data in left.nodes(data=True):
        if "pre_activation" in data:
            incoming = sum(weight for _, _, weight in left.in_edges(node, data="weight"))
            assert data["pre_activation"] == pytest.approx(data["bias"] + incoming, abs=1e-6)
    for node in edit.ablated:
        assert left.nodes[node]["ablated"] == to
        assert not list(left.in_edges(node))
        assert not list(left.out_edges(node))


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_the_frozen_models_are_the_edited_model(analysis, before, to):
    """Its outputs are the metric of `result.json`, and it reads what the edited model reads."""
    edit = edit_of(before, to)
    expected = metric_with(to_patch(analysis), edit.kept_set(), to)
    prompts = ReplacedPrompts(edited_analysis(analysis, edit), partial(pinned_by, analysis, edit))
    for opened in prompts:
        model, row = opened.model, torch.tensor([opened.number])
        metric = on_clean(analysis.metric, model.recorded.logits[None], row)
        torch.testing.assert_close(metric[0], expected[opened.number], rtol=0, atol=EXACT)
        value = opened.outputs.values(model)
        torch.testing.assert_close(value, metric, rtol=0, atol=MODELS)
        for layer, read in enumerate(model.recorded.mlp_in):
            torch.testing.assert_close(model.read(Site("mlp_in", layer)), read, rtol=0, atol=MODELS)
        on = model.sources.dictionary >= 0
        assert (model.sources.activation[on] - model.pre_activation[on]).abs().max() < MODELS


def test_errors_are_those_that_arrive(analysis, before):
    """In clean and patch prompts, as in the sparse feature graph under the same ablation."""
    analysis = to_patch(analysis)
    edit = Ablation(ablated=strongest(before), to="mean")
    (state,) = edited_states(analysis, edit)
    prompts = ReplacedPrompts(analysis, partial(pinned_by, analysis, edit))
    for side in ("error", "reference"):
        batch = analysis.prompts.clean if side == "error" else analysis.prompts.patch
        for number in range(len(analysis.prompts)):
            for layer, written in enumerate(prompts.replaced(batch, number).sources.layers):
                expected = getattr(state.errors[Site("mlp_out", layer)], side)[number]
                torch.testing.assert_close(written.error, expected, rtol=0, atol=EXACT)


def by_hooks(analysis, node, value, number):
    """The MLPs' outputs where a feature is set to a value at its token, by plain hooks."""
    dictionary, site = analysis.suite[node.site], Site.parse(node.site)
    tokens = analysis.prompts.clean.tokens[number][None]
    reads = [Site("mlp_in", layer) for layer in range(3)]
    with capture(analysis.model, reads) as seen:

        def cut(x):
            f = dictionary.encode(seen[Site("mlp_in", site.layer)]).dense()
            move = value - f[0, node.position, node.feature]
            x = x.clone()
            x[0, node.position] += move * written_rows(dictionary, site)[node.feature]
            return x

        with torch.no_grad(), intervene(analysis.model, {site: cut}):
            logits = analysis.model(tokens)
    return seen, logits[0, -1]


def test_it_is_what_plain_hooks_leave(analysis, before):
    (node,) = strongest(before, n=1)
    edit = Ablation(ablated=(node,))
    for number in range(len(analysis.prompts)):
        pinned = pinned_by(analysis, edit, analysis.prompts.clean, number)
        prompts = ReplacedPrompts(analysis, lambda *_, pinned=pinned: pinned)
        model = prompts.replaced(analysis.prompts.clean, number)
        seen, logits = by_hooks(analysis, node, 0.0, number)
        torch.testing.assert_close(model.recorded.logits, logits, rtol=0, atol=EXACT)
        for layer in range(3):
            read = model.recorded.mlp_in[layer]
            torch.testing.assert_close(read, seen[Site("mlp_in", layer)][0], rtol=0, atol=EXACT)


def test_only_errors_that_arrive_are_errors(analysis, before):
    """Set to its mean a feature writes a constant: a bias, and no part of any error."""
    (node,) = strongest(before, n=1)
    errors = []
    for to in ("zero", "mean"):
        pinned = pinned_by(analysis, Ablation(ablated=(node,), to=to), analysis.prompts.clean, 0)
        prompts = ReplacedPrompts(analysis, lambda *_, pinned=pinned: pinned)
        layer = Site.parse(node.site).layer
        errors.append(prompts.replaced(analysis.prompts.clean, 0).sources.layers[layer])
    torch.testing.assert_close(errors[0].error, errors[1].error, rtol=0, atol=EXACT)
    assert (errors[0].bias - errors[1].bias)[node.position].norm() > 1e-3


@pytest.mark.parametrize("positions", ["end", "sum"])
def test_prompts_of_several_lengths_and_cross_layer_transcoders(positions):
    prompts = padded_on_the_left(toy_prompts(n=2, length=4), 2)
    for batch in (prompts.clean, prompts.patch):
        batch.mask[1, 2] = False
    suite = Suite({name: d.float() for name, d in cross_layer_suite().items()}, {})
    how = DiscoverConfig(method="replacement", nodes=None, reference="zero", positions=positions)
    analysis = Analysis.of(shared_toy(dtype=torch.float32), suite, prompts, how)
    before = discover_replacement(analysis).graph
    edit = Ablation(ablated=strongest(before), to="mean")
    left = graph_left(analysis, edit, before)
    (output,) = [data for node, data in left.nodes(data=True) if node.kind == "logit"]
    expected = float(metric_with(analysis, edit.kept_set(), "mean").mean())
    assert output["activation"] == pytest.approx(expected, abs=1e-4)
    assert all(left.nodes[node]["ablated"] == "mean" for node in edit.ablated)


def test_all_but_the_graph_leaves_no_other_node(analysis, before):
    kept = strongest(before, n=4)
    left = graph_left(analysis, Ablation(kept=kept, to="zero"), before)
    standing = {n for n, data in left.nodes(data=True) if "ablated" not in data}
    written = {str(site) for site in analysis.suite.writes}
    assert {n for n in standing if n.kind == "feature"} <= set(kept)
    assert not [n for n in standing if n.kind == "error" and n.site in written]


def test_half_a_skip_connection_is_refused():
    analysis = analysis_of(Suite(suite_of([0, 1, 2], skips=[1]), {}))
    before = discover_replacement(analysis).graph
    with pytest.raises(ValueError, match="half a connection"):
        graph_left(analysis, edit_of(before, "zero"), before)
    left = graph_left(analysis, Ablation(ablated=strongest(before)), before)
    assert all(left.nodes[node]["ablated"] == "zero" for node in strongest(before))
