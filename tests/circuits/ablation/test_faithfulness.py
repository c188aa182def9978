"""Sets of nodes ablated together: both ends of the scale, and what lies between, by plain means."""

import dataclasses
import random

import pytest
import torch

from circuits.ablation.faithfulness import (
    FaithfulnessCurve,
    FullAndEmpty,
    Measured,
    curve,
    default_to,
    full_and_empty,
    mean_curve,
    metric_with,
    metrics_with,
)
from circuits.discovery.ranking import rank_nodes
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons, untrained
from saes.nodes import NodeSet
from tests.circuits.dense import dense, nodes_that_move, ranking_of
from tests.circuits.linear import linear_analysis
from tests.toys import analysis_of, full_suite, shared_toy, toy_hf, toy_prompts, toy_suite

NOTHING = NodeSet.of([])


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def case(analysis):
    return analysis.model, analysis.suite, analysis.prompts


def test_keeping_every_node_changes_nothing(analysis):
    kept = metric_with(analysis, NOTHING.complement(), "mean")
    clean = torch.cat([analysis.metric(s.logits, s.rows) for s in analysis.states]).double()
    torch.testing.assert_close(kept, clean, atol=1e-6, rtol=0)


def test_the_scale_runs_from_nothing_kept_to_everything(analysis):
    scale = full_and_empty(analysis, "mean")
    found = scale.faithfulness(torch.stack([scale.full, scale.empty]))
    assert found.record() == pytest.approx([1, 0])
    low, high = found.confidence_interval()
    assert low == pytest.approx([1, 0])
    assert high == pytest.approx([1, 0])


def test_with_all_nodes_at_the_patch_the_metric_is_the_patch_runs(analysis):
    """Every site forced to its patch value, whatever arrives: the patch prompt's own logits,
    but for the embeddings' direct path, which the last stream's site cuts off."""
    empty = metric_with(analysis, NOTHING, "patch")
    states, metric = analysis.states, analysis.metric
    patch = torch.cat([metric(s.patch_logits, s.rows) for s in states]).double()
    torch.testing.assert_close(empty, patch, atol=1e-6, rtol=0)


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_an_edit_equals_plain_hugging_face_hooks(analysis, to):
    suite, prompts = analysis.suite, analysis.prompts
    site, position = Site("mlp_out", 0), 3
    i = int(torch.cat([dense(s, site).f for s in analysis.states])[:, position].sum(0).argmax())
    edit = edits.Ablation(ablated=(Node(str(site), i, position),), to=to)
    ours = metric_with(analysis, edit.kept_set(), to)

    hf, dictionary = toy_hf(), suite[site]
    mlp = hf.model.layers[0].mlp

    def features(x):
        pre = x @ dictionary.W_enc.T + dictionary.b_enc
        return torch.relu(pre) * (pre >= pre.topk(5, dim=-1).values[..., -1:])

    outputs = {}
    for name, batch in (("clean", prompts.clean), ("patch", prompts.patch)):
        handle = mlp.register_forward_hook(lambda m, a, o, name=name: outputs.update({name: o}))
        with torch.no_grad():
            hf(batch.tokens)
        handle.remove()
    f_clean, f_patch = (features(outputs[name])[:, position, i] for name in ("clean", "patch"))
    target = {"zero": 0.0, "mean": f_patch.mean(), "patch": f_patch}[to]

    def cut(module, args, output):
        output = output.clone()
        output[:, position] += (target - f_clean)[:, None] * dictionary.W_dec[i]
        return output

    handle = mlp.register_forward_hook(cut)
    with torch.no_grad():
        logits = hf(prompts.clean.tokens).logits[:, -1]
    handle.remove()
    expected = analysis.metric(logits, torch.arange(len(prompts))).double()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_what_is_kept_outside_an_edit_has_the_faithfulness_that_verify_says(analysis, case, to):
    """`--outside` ablates all but the circuit, nodes that do not change with the patch too."""
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, analysis.states[0]))
    circuit = tuple(n for n, _ in ranking)[::7]
    edit = edits.Ablation(kept=circuit, to=to)
    result = ablate(analysis_of(*case, batch_size=5), edit, ranking)
    kept = NodeSet.of(circuit)
    expected = metric_with(analysis, kept, to)
    assert result["after"] == pytest.approx(float(expected.mean()), abs=1e-5)
    (control,) = result["controls"]
    assert control["name"] == f"{len(circuit)} random nodes at the same sites and positions"


def test_controls_share_both_ends_of_the_scale(analysis):
    """With everything ablated to its mean a site is its mean, however it was decomposed."""
    suite = analysis.suite
    expected = full_and_empty(analysis, "mean").empty
    for control in (neurons(suite), untrained(suite)):
        empty = full_and_empty(analysis.by(control), "mean").empty
        torch.testing.assert_close(empty, expected, atol=1e-5, rtol=0)


def test_dictionaries_of_another_model_have_no_scale(case):
    model, _, prompts = case
    frozen = dataclasses.replace(prompts, patch=prompts.clean)
    other = analysis_of(model, toy_suite("resid_post.0"), frozen)
    with pytest.raises(ValueError, match="changes nothing"):
        full_and_empty(other, "patch")


def test_hooks_are_gone_after_an_ablation(analysis):
    model, prompts = analysis.model, analysis.prompts
    before = last_logits(model, prompts.clean)
    metric_with(analysis, NOTHING, "mean")
    assert torch.equal(last_logits(model, prompts.clean), before)
    with (
        pytest.raises(RuntimeError, match="never edited"),
        intervene(model, {Site("mlp_out", 0): lambda x: x}),
    ):
        pass


def test_a_coordinate_kept_is_kept_whole(case):
    """As two nodes, one a sign, keeping the one that moves leaves the other half ablated."""
    model, suite, prompts = case
    coordinates = neurons(suite)
    analysis = analysis_of(model, coordinates, prompts, estimator="patching")
    (state,) = analysis.states
    for name in coordinates:
        assert torch.equal(dense(state, name).f, state.values[Site.parse(name)])
    changed = nodes_that_move(analysis, state)
    assert len(changed) == len(set(changed)) <= 9 * 24 * 6
    # Half of the coordinates: what stands at a site is the clean value there, else the patch's.
    last = Site("resid_post", 2)
    some = {n for n in changed[::2] if n.site == str(last)}
    stays = torch.zeros(6, 24, dtype=torch.bool)
    for node in some:
        stays[node.position, node.feature] = True
    half = torch.where(stays, state.values[last], dense(state, last).reference)
    with intervene(model, {last: lambda _: half}):
        expected = analysis.metric(last_logits(model, prompts.clean), state.rows)
    kept = NodeSet.of([n for n in changed if n.site != str(last) or n in some])
    found = metric_with(analysis, kept, "patch")
    torch.testing.assert_close(found, expected)
    everything = metrics_with(analysis, [NodeSet.of(changed)], "patch")
    whole = full_and_empty(analysis, "patch").faithfulness(everything)
    assert float(whole.values) == pytest.approx(1, abs=1e-6)


def test_the_neuron_control_decomposes_without_error(case):
    model, suite, prompts = case
    (state,) = analysis_of(model, neurons(suite), prompts).states
    for nodes in state.errors.values():
        assert nodes.error.abs().max() < 1e-12


@pytest.fixture(scope="module")
def linear():
    analysis = linear_analysis()
    return analysis, rank_nodes(analysis)[0].inner()


def nested(nodes, seed):
    """Circuits that grow by one node at a time, in an order of their own."""
    order = random.Random(seed).sample(list(nodes), len(nodes))
    return [order[:n] for n in range(len(order) + 1)]


@pytest.mark.parametrize("seed", range(3))
def test_in_a_linear_model_what_is_kept_adds_up(linear, seed):
    """m(C) is what the patch leaves, less the effects of all that stays as it was."""
    analysis, ranking = linear
    effects, scale = dict(ranking), full_and_empty(analysis, "patch")
    circuits = nested(effects, seed)
    total = sum(effects.values())
    found = curve(analysis, [NodeSet.of(c) for c in circuits], scale, to="patch")
    kept = [sum(effects[n] for n in c) / total for c in circuits]
    assert found.faithfulness.values.tolist() == pytest.approx(kept, abs=1e-9)
    assert found.completeness.values.tolist() == pytest.approx([1 - k for k in kept], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_linear_model_faithfulness_rises_with_every_node_that_pulls_its_way(linear, seed):
    analysis, ranking = linear
    way = sum(effect for _, effect in ranking)
    helpful = [node for node, effect in ranking if effect * way > 0]
    scale = full_and_empty(analysis, "patch")
    circuits = [NodeSet.of(c) for c in nested(helpful, seed)]
    found = curve(analysis, circuits, scale, to="patch", complete=False)
    assert len(helpful) > 3
    assert (found.faithfulness.values.diff() > 0).all()
    assert found.completeness.record() == []


def test_circuits_in_one_pass_are_each_as_alone(analysis):
    nodes = nodes_that_move(analysis, analysis.states[0])
    circuits = [NodeSet.of(nodes[i::5]) for i in range(4)] + [NOTHING, NOTHING.complement()]
    told = []
    found = metrics_with(analysis, circuits, "mean", report=told.append)
    assert found.shape == (6, 5)
    for circuit, row in zip(circuits, found, strict=True):
        torch.testing.assert_close(metric_with(analysis, circuit, "mean"), row, atol=1e-9, rtol=0)
    assert sum(told) == len(circuits) * len(analysis.states)


def test_faithfulness_is_of_the_means_and_both_ends_are_drawn_with_them():
    """Prompts that follow one line have no interval, however far apart they are."""
    full = torch.tensor([1.0, 5.0, -2.0, 8.0], dtype=torch.float64)
    scale = FullAndEmpty(full, torch.zeros(4, dtype=torch.float64))
    found = scale.faithfulness(torch.stack([0.25 * full, full + 3]))
    assert found.record() == pytest.approx([0.25, 2])
    low, high = found.confidence_interval()
    assert (low[0], high[0]) == pytest.approx((0.25, 0.25))
    assert low[1] < 2 < high[1]


def test_a_mean_of_curves_is_taken_point_by_point_in_every_draw():
    def measured(*values):
        column = torch.tensor(values, dtype=torch.float64)
        return Measured(column, torch.stack([column, 3 * column], 1))

    one = FaithfulnessCurve(measured(0.0, 1.0), measured(1.0, 0.0))
    other = FaithfulnessCurve(measured(0.5, 2.0), measured(0.0, 1.0))
    found = mean_curve([one, other])
    assert found.faithfulness.values.tolist() == [0.25, 1.5]
    assert found.faithfulness.draws.tolist() == [[0.25, 0.75], [1.5, 4.5]]
    assert found.completeness.values.tolist() == [0.5, 0.5]


def test_a_lone_prompt_is_not_its_own_mean(case):
    """Ablated to the mean of itself nothing would change; a pair has the patch's."""
    _, _, prompts = case
    unpaired = dataclasses.replace(prompts, patch=None)
    alone = toy_prompts(n=1)
    assert default_to(prompts) == default_to(unpaired) == default_to(alone) == "mean"
    assert default_to(dataclasses.replace(alone, patch=None)) == "zero"
