"""Sets of nodes ablated together: the ends of the scale, and edits against plain hooks."""

import dataclasses
from collections import Counter

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import ends, metric_with
from circuits.analysis import Analysis
from circuits.attribution.means import mean_over
from circuits.attribution.state import batches
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.edits.control_nodes import control_nodes
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons, untrained
from saes.nodes import NodeSet
from tests.circuits.dense import dense, nodes_that_move, ranking_of
from tests.conftest import analysis_of, full_suite, toy, toy_hf, toy_prompts, toy_suite

LENGTH = 6
NOTHING = NodeSet.of([])


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def case(analysis):
    return analysis.model, analysis.suite, analysis.prompts


def test_keeping_every_node_changes_nothing(analysis):
    kept = metric_with(analysis, NOTHING.complement(), "mean")
    clean = torch.cat([analysis.metric(s.logits, s.rows) for s in analysis.states]).double()
    torch.testing.assert_close(kept, clean, atol=1e-6, rtol=0)


def test_the_scale_runs_from_nothing_kept_to_everything(analysis):
    scale = ends(analysis, "mean")
    found = scale.faithfulness(torch.stack([scale.full, scale.empty]))
    assert found.record() == pytest.approx([1, 0])
    low, high = found.ends()
    assert low == pytest.approx([1, 0])
    assert high == pytest.approx([1, 0])


def test_with_all_nodes_at_the_patch_the_metric_is_the_patch_runs(analysis):
    """Every site forced to its patch value, whatever arrives: the patch prompt's own logits,
    but for the embeddings' direct path, which the last stream's site cuts off."""
    empty = metric_with(analysis, NOTHING, "patch")
    states, metric = analysis.states, analysis.metric
    patch = torch.cat([metric(s.patch_logits, s.rows) for s in states]).double()
    torch.testing.assert_close(empty, patch, atol=1e-6, rtol=0)


def test_means_leave_padding_out_and_do_not_depend_on_batches(analysis, case):
    (model, suite, prompts), means = case, analysis.means
    again = mean_over(model, suite, prompts.patch, by_position=True, batch_size=5)
    for name in suite:
        found, expected = again.f[name].dense(), means.f[name].dense()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    total = mean_over(model, suite, prompts.patch, by_position=False, batch_size=5)
    for name in suite:
        expected = means.f[name].dense().mean(0, keepdim=True)
        torch.testing.assert_close(total.f[name].dense(), expected, atol=1e-6, rtol=0)
    for site in suite.writes:
        expected = means.error[site].mean(0, keepdim=True)
        torch.testing.assert_close(total.error[site], expected, atol=1e-6, rtol=0)


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


def test_a_node_that_moves_on_no_prompt_has_no_effect(analysis):
    state = analysis.states[0]
    still = [i for i in range(20) if not dense(state, "mlp_out.0").change[:, 2, i].any()]
    effects = exact_effects(analysis, state, [Node("mlp_out.0", still[0], 2)])
    assert not effects.any()


def test_a_node_without_a_position_is_ablated_at_all():
    kept = edits.Ablation(ablated=(Node("mlp_out.0", 2),)).kept_set()
    index = torch.arange(20).expand(LENGTH, 20)
    assert torch.equal(kept.feature("mlp_out.0", index, torch.arange(LENGTH)), index != 2)
    assert kept.feature("mlp_out.1", index, torch.arange(LENGTH)).all()
    assert kept.error(Site("mlp_out", 0), torch.arange(LENGTH)).all()


def test_under_an_edit_discovery_sees_the_edited_model(analysis, case):
    """Ablating a node's whole upstream leaves the graph with the metric of the edited run."""
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=10, batch_size=2)
    edit = edits.Ablation(
        ablated=(Node("resid_post.0", "error"), Node("resid_post.0", 3)), to="mean"
    )
    with edits.apply(Analysis.of(model, suite, prompts, config), edit):
        under = discover(Analysis.of(model, suite, prompts, config))
    expected = metric_with(analysis, edit.kept_set(), "mean").mean()
    assert under.graph.graph["clean_metric"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["log-probability", "kl"])
def test_accuracy_is_of_the_answer_whatever_the_metric(case, name):
    model, suite, prompts = case
    configs = [DiscoverConfig(metric=m, nodes=10, steps=1) for m in ("logit-difference", name)]
    ranking = discover(Analysis.of(model, suite, prompts, configs[0])).ranking
    edit = edits.Ablation(ablated=tuple(n for n, _ in ranking if n.kind == "feature")[:5])
    found = [ablate(Analysis.of(model, suite, prompts, c), edit, ranking) for c in configs]
    for field in ("accuracy_before", "accuracy_after"):
        assert found[1][field] == found[0][field]
    assert found[1]["controls"][0]["accuracy_after"] == found[0]["controls"][0]["accuracy_after"]
    assert 0 < found[0]["accuracy_before"] < 1
    assert found[1]["after"] != found[0]["after"]


def test_prompts_without_a_patch_cannot_be_ablated_to_it(case):
    model, suite, prompts = case
    alone = dataclasses.replace(prompts, patch=None)
    edit = edits.Ablation(ablated=(Node("mlp_out.0", 2),), to="patch")
    config = DiscoverConfig(reference="zero")
    with pytest.raises(ValueError, match="no patch to ablate to: use --to zero or mean"):
        ablate(Analysis.of(model, suite, alone, config), edit, ranking_of(suite, []))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlp_out.9/3", "there is no dictionary for mlp_out.9/3: the sites are"),
        ("mlp_out.0/20", "features 0 to 19"),
        ("logit/ are", "there is no dictionary"),
        (" , ", "no feature was named"),
        ("mlp_out.0", "write SITE/FEATURE"),
    ],
)
def test_features_that_do_not_exist_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        edits.parse_features(text, full_suite())


def test_a_position_outside_the_prompts_is_refused(case):
    model, suite, prompts = case
    for positions, message in (("keep", "positions 0 to 5"), ("sum", "leave out the @")):
        edit = edits.Ablation(ablated=(Node("mlp_out.0", 1, 9),))
        config = DiscoverConfig(positions=positions)
        with pytest.raises(ValueError, match=message):
            ablate(Analysis.of(model, suite, prompts, config), edit, ranking_of(suite, []))


def test_controls_are_other_nodes_at_the_same_sites_and_positions(analysis):
    states, prompts = analysis.states, analysis.prompts
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    features = [n for n, _ in ranking if n.kind == "feature"]
    ablated = tuple(n for n in features if n.site == "resid_post.1" and n.position in (2, 5))[:3]
    edit = edits.Ablation(ablated=ablated)
    wanted = Counter((n.site, n.position) for n in ablated)
    controls = control_nodes(edit, ranking, states, seed=0)
    assert list(controls) == [
        "3 random nodes at the same sites and positions",
        "3 features as active at the same sites and positions",
    ]
    for draws in controls.values():
        assert len(draws) == 3
        for drawn in draws:
            assert Counter((n.site, n.position) for n in drawn) == wanted
            assert not set(drawn) & set(ablated)
    result = ablate(analysis, edit, ranking)
    assert [c["name"] for c in result["controls"]] == list(controls)
    assert all(c["after"] != result["after"] for c in result["controls"])
    assert len(result["prompts"]) == len(prompts)


def test_a_feature_at_every_position_is_answered_by_another_at_every_position(analysis):
    """One node in its place would ablate one position where the feature ablates six."""
    states = analysis.states
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    edit = edits.Ablation(ablated=(Node("mlp_out.1", 2), Node("mlp_out.1", 5)))
    for draws in control_nodes(edit, ranking, states, seed=0).values():
        for drawn in draws:
            assert [n.position for n in drawn] == [None, None]
            assert len({n.feature for n in drawn} - {2, 5}) == 2


def test_the_control_of_like_activation_is_of_like_activation(analysis):
    states = analysis.states
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    f = torch.cat([dense(s, "resid_post.1").f[:, 3] for s in states]).mean(0)
    by_size = f.argsort(descending=True).tolist()
    strongest = Node("resid_post.1", by_size[0], 3)
    draws = control_nodes(edits.Ablation(ablated=(strongest,)), ranking, states, seed=0)[
        "1 features as active at the same sites and positions"
    ]
    assert {n.feature for (n,) in draws} <= set(by_size[1:6])


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


def test_an_edit_ablates_nodes_or_keeps_them():
    with pytest.raises(ValueError, match="ablates some nodes, or all but those that are kept"):
        edits.Ablation()
    with pytest.raises(ValueError, match="ablates some nodes, or all but those that are kept"):
        edits.Ablation(ablated=(Node("mlp_out.0", 1),), kept=())


def test_the_set_of_a_circuit_has_its_nodes_and_nothing_else(case):
    _, suite, *_ = case
    nodes = [Node("mlp_out.1", 4, 2), Node("resid_post.0", "error", 5), Node("embed", "token", 1)]
    kept, at = NodeSet.of(nodes), torch.arange(LENGTH)
    index = torch.arange(20).expand(LENGTH, 20)
    features = [
        Node(name, i, p)
        for name in suite
        for p, i in kept.feature(name, index, at).nonzero().tolist()
    ]
    errors = [
        Node(str(site), "error", p)
        for site in suite.writes
        for (p,) in kept.error(site, at).nonzero().tolist()
    ]
    assert [*features, *errors] == nodes[:2]


def test_the_neuron_control_decomposes_without_error(case):
    model, suite, prompts = case
    (state,) = batches(model, neurons(suite), prompts, reference="patch", batch_size=5)
    for nodes in state.errors.values():
        assert nodes.error.abs().max() < 1e-12


def test_controls_share_both_ends_of_the_scale(analysis):
    """With everything ablated to its mean a site is its mean, however it was decomposed."""
    suite = analysis.suite
    expected = ends(analysis, "mean").empty
    for control in (neurons(suite), untrained(suite)):
        empty = ends(analysis.by(control), "mean").empty
        torch.testing.assert_close(empty, expected, atol=1e-5, rtol=0)


def test_dictionaries_of_another_model_have_no_scale(case):
    model, _, prompts = case
    frozen = dataclasses.replace(prompts, patch=prompts.clean)
    other = analysis_of(model, toy_suite("resid_post.0"), frozen)
    with pytest.raises(ValueError, match="changes nothing"):
        ends(other, "patch")


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
