"""The graph that an ablation leaves: ablated nodes stand still, and nothing is encoded again."""

import dataclasses

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.path_patching import exact_edges
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import gradients_at_clean
from circuits.attribution.state import batches
from circuits.comparison import differences
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import edited_states, graph_left
from circuits.graph import Node, as_json
from circuits.metrics.metric import logit_difference
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.sites import Site
from tests.circuits.dense import dense, nearer, ranking_of, responding_as_clean
from tests.conftest import full_suite, toy, toy_hf, toy_prompts

STREAM = Site("resid_post", 1)
CUT = (Node("resid_post.1", 4), Node("mlp_out.1", 7), Node("resid_post.0", 2, 1))


@pytest.fixture(scope="module")
def case():
    model, suite, prompts = toy(), full_suite(), toy_prompts(n=4)
    return model, suite, prompts, logit_difference(prompts.answer_ids, prompts.wrong_ids)


def active(case, n=3):
    """The strongest features of the stream on the prompts, at every position."""
    model, suite, prompts, _ = case
    (state,) = batches(model, suite, prompts, reference="patch", batch_size=4)
    strongest = dense(state, STREAM).change.abs().sum((0, 1)).topk(n).indices
    return tuple(Node(str(STREAM), i) for i in strongest.tolist())


def plain_logits(case, nodes, to):
    """Hugging Face's model with hooks that set the features of the stream after layer 1."""
    _, suite, prompts, _ = case
    hf, dictionary = toy_hf(), suite[STREAM]
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


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_prompts_run_as_plain_hooks_run_them(case, to):
    """To the patch: each prompt has its own patch's values, not a mean of them."""
    model, suite, prompts, _ = case
    nodes = active(case)
    config = DiscoverConfig(batch_size=3)
    edit = Ablation(ablated=nodes, to=to)
    states = edited_states(model, suite, prompts, edit, config=config)
    expected = plain_logits(case, nodes, to)
    found = torch.cat([state.logits for state in states])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    left = graph_left(model, suite, prompts, edit, discover_graph(case), config=config)
    after = ablate(model, suite, prompts, edit, ranking_of(suite, []), config=config)["after"]
    assert left.graph["clean_metric"] == pytest.approx(after, abs=1e-5)
    assert left.graph["ablation"] == {"to": to, "features": [str(n) for n in nodes]}


def discover_graph(case, **options):
    model, suite, prompts, _ = case
    config = DiscoverConfig(estimator="patching", nodes=40, **options)
    return discover(model, suite, prompts, config=config).graph


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
@pytest.mark.parametrize("estimator", ["patching", "ig", "ig-inputs", "exact"])
def test_an_ablated_node_has_no_effect_and_is_marked(case, to, estimator):
    model, suite, prompts, _ = case
    before = discover_graph(case)
    cut = tuple(n for n in before if n.kind == "feature")[:4] + CUT
    config = DiscoverConfig(estimator=estimator, nodes=30, steps=2)
    edit = Ablation(ablated=cut, to=to)
    states = edited_states(model, suite, prompts, edit, config=config)
    found = discover(model, suite, prompts, config=config, states=states)
    assert not any(edit.ablates(node) for node, _ in found.ranking)
    left = graph_left(model, suite, prompts, edit, before, config=config)
    for node in before:
        if edit.ablates(node):
            data = left.nodes[node]
            assert (data["effect"], data["ablated"], left.degree(node)) == (0.0, to, 0)
    rows = {row.node: row.status for row in differences(before, left)}
    assert {rows[n] for n in before if edit.ablates(n)} == {"ablated"}
    assert as_json(left)["nodes"]


def test_what_stands_at_a_cut_site_is_what_arrives_less_what_is_cut(case):
    """Features that encoding the edited tensor again would turn on are off."""
    model, suite, prompts, _ = case
    (plain,) = batches(model, suite, prompts, reference="patch", batch_size=4)
    edit = Ablation(ablated=active(case))
    (state,) = edited_states(model, suite, prompts, edit, config=DiscoverConfig())
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
def test_effects_in_the_edited_model_are_exact(case, to):
    """By plain runs of the whole model under the edit, with one node of another site moved."""
    model, suite, prompts, metric = case
    edit = Ablation(ablated=active(case), to=to)
    (state,) = edited_states(model, suite, prompts, edit, config=DiscoverConfig())
    nodes = [Node("attn_out.0", "error", 2), Node("mlp_out.2", "error", 5)]
    found = exact_effects(model, suite, state, metric, nodes)
    for node, effects in zip(nodes, found, strict=True):
        site, at = Site.parse(node.site), node.position
        value = state.values[site].clone()
        value[:, at] += state.errors[site].change[:, at]
        with state.under(state.every_row), intervene(model, {site: lambda _, value=value: value}):
            logits = last_logits(model, prompts.clean)
        gap = metric(logits, state.rows) - metric(state.logits, state.rows)
        torch.testing.assert_close(effects, gap.double(), atol=1e-6, rtol=0)


def test_edges_in_the_edited_model_agree_with_path_patching_on_small_moves(case):
    """Into features and errors of the cut site too, which read what arrives before the cut."""
    model, suite, prompts, metric = case
    edit = Ablation(ablated=active(case))
    (state,) = edited_states(model, suite, prompts, edit, config=DiscoverConfig())
    state = responding_as_clean(nearer(state, 1e-4))
    cut = [int(n.feature) for n in edit.ablated]
    (plain,) = batches(model, suite, prompts, reference="patch", batch_size=4)
    arriving = dataclasses.replace(
        state.features[str(STREAM)], slope=plain.features[str(STREAM)].f.on()
    )
    state = dataclasses.replace(state, features=state.features | {str(STREAM): arriving})
    gradients = gradients_at_clean(model, suite, state, metric)
    on = (dense(state, STREAM).f[:, 5] != 0).any(0).nonzero().flatten().tolist()
    targets = [Node(str(STREAM), i, 5) for i in on if i not in cut][:3]
    targets.append(Node(str(STREAM), "error", 5))
    change = dense(state, "mlp_out.1").change[:, 5].abs().sum(0).topk(3).indices.tolist()
    sources = [Node("mlp_out.1", i, 5) for i in change] + [Node("mlp_out.1", "error", 5)]
    edges = [(s, t) for s in sources for t in targets]
    weights = edge_weights(model, suite, state, gradients, metric, [*sources, *targets])
    exact = exact_edges(model, suite, state, gradients, metric, edges).sum(1)
    estimate = torch.tensor([weights[e] for e in edges]).double()
    torch.testing.assert_close(estimate, exact, atol=1e-9, rtol=2e-3)
