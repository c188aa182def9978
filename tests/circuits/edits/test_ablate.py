"""Ablating nodes: what is named, what is refused, and what the record says."""

import dataclasses
from functools import partial

import pytest
import torch

from circuits.ablation.faithfulness import metric_with
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.edits.edited import graph_left
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.sites import Site
from saes.nodes import NodeSet
from tests.circuits.dense import ranking_of
from tests.toys import analysis_of, full_suite, leaves, shared_toy, toy_prompts

LENGTH = 6
same = partial(torch.testing.assert_close, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def case(analysis):
    return analysis.model, analysis.suite, analysis.prompts


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


@pytest.mark.parametrize("to", ["mean", "patch", "zero"])
def test_by_the_dictionaries_of_its_sites_alone_an_ablation_is_as_by_all(analysis, to):
    """With states that are there already, all dictionaries are used."""
    nodes = Node("mlp_out.1", 3), Node("mlp_out.1", 5, 2), Node("resid_post.0", "error")
    ranking = discover(analysis).ranking
    strongest = next(n for n, _ in ranking if n.kind == "feature")
    for ablated in (nodes[:1], nodes, (strongest,)):
        edit = edits.Ablation(ablated=ablated, to=to)
        whole = dataclasses.replace(analysis, edited=analysis.states)
        found, expected = (ablate(asked, edit, ranking) for asked in (analysis, whole))
        kept, some = edit.kept_set(), analysis.at(map(Site.parse, {n.site for n in ablated}))
        assert len(some.suite) < len(analysis.suite)
        same(metric_with(some, kept, to), metric_with(analysis, kept, to))
        for own, other in zip(leaves(found), leaves(expected), strict=True):
            assert own == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other)


class Noted(dict):
    """What is kept in it, by the dictionaries that it is of, as often as it is."""

    def __init__(self):
        self.kept = []

    def __setitem__(self, key, means):
        self.kept.append(sorted(means.f))
        super().__setitem__(key, means)


@pytest.mark.parametrize("metric", ["logit-difference", "log-probability"])
def test_an_ablation_and_the_graph_that_is_left_share_the_means(case, metric):
    config = DiscoverConfig(metric=metric, estimator="patching", nodes=8)
    analysis = dataclasses.replace(Analysis.of(*case, config), made=(made := Noted()))
    found = discover(analysis)
    edit = edits.Ablation(ablated=(Node("mlp_out.1", 3),), to="mean")
    ablate(analysis, edit, found.ranking)
    graph_left(analysis, edit, found.graph)
    assert made.kept == [["mlp_out.1"]]
    with edits.apply(analysis, edit):
        last_logits(analysis.model, analysis.prompts.clean)
    assert made.kept == [["mlp_out.1"]] * 2, "those of all tokens are other means"


def test_a_metric_that_is_read_before_what_is_ablated_stays(case):
    ranking = ranking_of(case[1], [])
    config = DiscoverConfig(metric="feature:resid_post.0/3")
    later, sooner = (
        ablate(Analysis.of(*case, config), edits.Ablation(ablated=(Node(name, "error"),)), ranking)
        for name in ("mlp_out.2", "attn_out.0")
    )
    assert later["after"] == later["before"] == sooner["before"] != sooner["after"]
    assert later["accuracy_after"] is not None


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
