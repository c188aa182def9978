"""What a graph leads to: answers, a metric made linear, a feature, a probe."""

import pytest
import torch

from circuits.metrics.readout import Readout
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from tests.circuits.discovery.replaced import (
    LENGTH,
    MODELS,
    SITES,
    check_sums,
    graph_of,
    speaking,
    unanswered,
)
from tests.toys import (
    shared_toy,
    toy_suite,
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


@pytest.mark.parametrize("site", ["attn_out.1", "resid_pre.0"])
def test_a_probe_of_what_is_no_part_of_the_stream_is_refused(one, site):
    probe = Readout(site=Site.parse(site), direction=torch.ones(24).double())
    with pytest.raises(ValueError, match=r"a replacement graph cannot lead to|no circuit of it"):
        graph_of(one, metric=probe)
