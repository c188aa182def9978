"""The graph that an ablation leaves: ablated nodes stand still, and nothing is encoded again."""

import dataclasses

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.path_patching import exact_edges
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import gradients_at_clean
from circuits.comparison import differences
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import edited_states, graph_left
from circuits.graph import Node, as_json
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.sites import Site
from tests.circuits.dense import dense, nearer, ranking_of, responding_as_clean
from tests.toys import analysis_of, full_suite, shared_toy, toy_hf, toy_prompts

STREAM = Site("resid_post", 1)
CUT = (Node("resid_post.1", 4), Node("mlp_out.1", 7), Node("resid_post.0", 2, 1))


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=4))


def active(analysis, n=3):
    """The strongest features of the stream on the prompts, at every position."""
    (state,) = analysis.states
    strongest = dense(state, STREAM).change.abs().sum((0, 1)).topk(n).indices
    return tuple(Node(str(STREAM), i) for i in strongest.tolist())


def plain_logits(analysis, nodes, to):
    """Hugging Face's model with hooks that set the features of the stream after layer 1."""
    prompts = analysis.prompts
    hf, dictionary = toy_hf(), analysis.suite[STREAM]
    chosen = [int(n.feature) for n in nodes]

    def encode(x):
        pre = (x @ dictionary.W_enc.T + dictionary.b_enc).relu()
        return pre * (pre >= pre.topk(5, dim=-1).values[..., -1:])

    def output(tokens, hook=None):
        seen = {}

        def read(_module, _args, value):
            x = value[0] if isinstance(value, tuple) else value
            seen["x"] = x
            new = x if hook is None else hook(x)
            return (new, *value[1:]) if isinstance(value, tuple) else new

        handle = hf.model.layers[1].register_forward_hook(read)
        with torch.no_grad():
            logits = hf(tokens).logits[:, -1]
        handle.remove()
        return encode(seen["x"]), logits

    patch, _ = output(prompts.patch.tokens)
    values = {"zero": torch.zeros_like(patch), "patch": patch, "mean": patch.mean(0)}[to]

    def edit(x):
        move = values.expand_as(patch)[..., chosen] - encode(x)[..., chosen]
        return x + move @ dictionary.W_dec[chosen]

    return output(prompts.clean.tokens, edit)[1]


@pytest.fixture(scope="module")
def before(analysis):
    """The graph without an edit."""
    return discover(analysis.asked(DiscoverConfig(estimator="patching", nodes=40))).graph


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_prompts_run_as_plain_hooks_run_them(analysis, before, to):
    """To the patch: each prompt has its own patch's values, not a mean of them."""
    nodes = active(analysis)
    edit = Ablation(ablated=nodes, to=to)
    expected = plain_logits(analysis, nodes, to)
    analysis = analysis_of(analysis.model, analysis.suite, analysis.prompts, batch_size=3)
    states = edited_states(analysis, edit)
    found = torch.cat([state.logits for state in states])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    left = graph_left(analysis, edit, before)
    after = ablate(analysis, edit, ranking_of(analysis.suite, []))["after"]
    assert left.graph["clean_metric"] == pytest.approx(after, abs=1e-5)
    assert left.graph["ablation"] == {"to": to, "features": [str(n) for n in nodes]}


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
@pytest.mark.parametrize("estimator", ["patching", "ig", "ig-inputs", "exact"])
def test_an_ablated_node_has_no_effect_and_is_marked(analysis, before, to, estimator):
    cut = tuple(n for n in before if n.kind == "feature")[:4] + CUT
    analysis = analysis.asked(DiscoverConfig(estimator=estimator, nodes=30, steps=2))
    edit = Ablation(ablated=cut, to=to)
    states = edited_states(analysis, edit)
    found = discover(dataclasses.replace(analysis, edited=states))
    assert not any(edit.ablates(node) for node, _ in found.ranking)
    left = graph_left(analysis, edit, before)
    for node in before:
        if edit.ablates(node):
            data = left.nodes[node]
            assert (data["effect"], data["ablated"], left.degree(node)) == (0.0, to, 0)
    rows = {row.node: row.status for row in differences(before, left)}
    assert {rows[n] for n in before if edit.ablates(n)} == {"ablated"}
    assert as_json(left)["nodes"]


def test_what_stands_at_a_cut_site_is_what_arrives_less_what_is_cut(analysis):
    """Features that encoding the edited tensor again would turn on are off."""
    (plain,), suite = analysis.states, analysis.suite
    edit = Ablation(ablated=active(analysis))
    (state,) = edited_states(analysis, edit)
    nodes, before, dictionary = state.features[str(STREAM)].f, dense(plain, STREAM), suite[STREAM]
    cut = [int(n.feature) for n in edit.ablated]
    expected = before.f.clone()
    expected[..., cut] = 0
    torch.testing.assert_close(nodes.dense(), expected)
    error = state.errors[STREAM].error
    torch.testing.assert_close(error, plain.errors[STREAM].error)
    torch.testing.assert_close(dictionary.decode(nodes) + error, state.values[STREAM])
    again = dictionary.encode(state.values[STREAM]).dense()
    assert ((again != 0) & (nodes.dense() == 0)).any(), "the case should show what is avoided"


@pytest.mark.parametrize("to", ["zero", "patch"])
def test_effects_in_the_edited_model_are_exact(analysis, to):
    """By plain runs of the whole model under the edit, with one node of another site moved."""
    model, prompts, metric = analysis.model, analysis.prompts, analysis.metric
    edit = Ablation(ablated=active(analysis), to=to)
    (state,) = edited_states(analysis, edit)
    nodes = [Node("attn_out.0", "error", 2), Node("mlp_out.2", "error", 5)]
    found = exact_effects(analysis, state, nodes)
    for node, effects in zip(nodes, found, strict=True):
        site, at = Site.parse(node.site), node.position
        value = state.values[site].clone()
        value[:, at] += state.errors[site].change[:, at]
        with state.under(state.every_row), intervene(model, {site: lambda _, value=value: value}):
            logits = last_logits(model, prompts.clean)
        gap = metric(logits, state.rows) - metric(state.logits, state.rows)
        torch.testing.assert_close(effects, gap.double(), atol=1e-6, rtol=0)


def test_edges_in_the_edited_model_agree_with_path_patching_on_small_moves(analysis):
    """Into features and errors of the cut site too, which read what arrives before the cut."""
    edit = Ablation(ablated=active(analysis))
    (state,) = edited_states(analysis, edit)
    state = responding_as_clean(nearer(state, 1e-4))
    cut = [int(n.feature) for n in edit.ablated]
    (plain,) = analysis.states
    arriving = dataclasses.replace(
        state.features[str(STREAM)], slope=plain.features[str(STREAM)].f.on()
    )
    state = dataclasses.replace(state, features=state.features | {str(STREAM): arriving})
    gradients = gradients_at_clean(analysis, state)
    on = (dense(state, STREAM).f[:, 5] != 0).any(0).nonzero().flatten().tolist()
    targets = [Node(str(STREAM), i, 5) for i in on if i not in cut][:3]
    targets.append(Node(str(STREAM), "error", 5))
    change = dense(state, "mlp_out.1").change[:, 5].abs().sum(0).topk(3).indices.tolist()
    sources = [Node("mlp_out.1", i, 5) for i in change] + [Node("mlp_out.1", "error", 5)]
    edges = [(s, t) for s in sources for t in targets]
    weights = edge_weights(analysis, state, gradients, [*sources, *targets])
    exact = exact_edges(analysis, state, gradients, edges).sum(1)
    estimate = torch.tensor([weights[e] for e in edges]).double()
    torch.testing.assert_close(estimate, exact, atol=1e-9, rtol=2e-3)
