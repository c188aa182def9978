"""A task's score by kept features: against hand-made hooks, its ends, and every control."""

from contextlib import ExitStack

import pytest
import torch

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.tracing import linear_effects, trace
from circuits.verification.sufficiency import (
    BY_GRAPH,
    FEATURES,
    NEURONS,
    RANDOM,
    UNTRAINED,
    SufficiencyConfig,
    sufficiency,
)
from hooked_qwen.progress import silent
from saes.dictionary import SparseDictionary
from saes.suite import Suite
from tests.toys import analysis_of, padded_on_the_left, shared_toy, toy_prompts
from tests.transcoders.toys import cross_layer_suite, suite_of, toy_of

EXACT = {"abs": 1e-6, "rel": 1e-6}


@pytest.fixture(scope="module")
def case():
    return shared_toy(), Suite(suite_of([0, 1, 2], skips=[1]), {}), toy_prompts(n=4)


def opened(case, **settings):
    model, suite, prompts = case
    settings = {"estimator": "patching", "positions": "sum"} | settings
    return analysis_of(model, suite, prompts, **settings)


def by_hand(analysis, kept, layers, *, held=False):
    """The mean metric with plain hooks: MLPs by transcoders, features outside `kept` set.

    `kept` has the indices of each layer's features; a hook sees what the layers before left.
    """
    model, prompts, reference = analysis.model, analysis.prompts, analysis.config.reference
    other = prompts.patch if reference == "patch" else prompts.clean
    plain, there = _inputs(model, prompts.clean), _inputs(model, other)

    def hook(layer):
        dictionary = analysis.suite[f"mlp_out.{layer}"]

        def replace(module, inputs, output):
            x = inputs[0]
            f = dictionary.encode(x).dense()
            at = dictionary.encode(there[layer]).dense()
            to = {"patch": at, "zero": 0 * at, "mean": at.mean((0, 1), keepdim=True)}[reference]
            keep = torch.zeros(f.shape[-1], dtype=torch.bool)
            keep[list(kept[layer])] = True
            y = torch.where(keep, f, to) @ dictionary.W_dec + dictionary.b_dec
            y = y + dictionary.skip(x)
            if held:
                y = y + module.forward(plain[layer]) - dictionary(plain[layer])
            return y

        return model.blocks[layer].mlp.original_component.register_forward_hook(replace)

    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            stack.callback(hook(layer).remove)
        logits = model(prompts.clean.tokens)[:, -1]
        return float(analysis.metric(logits, torch.arange(len(prompts))).mean())


def _inputs(model, batch):
    """What each layer's MLP reads in the model as it is."""
    seen, handles = {}, []
    for layer in range(3):
        module = model.blocks[layer].mlp.original_component

        def see(module, inputs, layer=layer):
            seen[layer] = inputs[0]

        handles.append(module.register_forward_pre_hook(see))
    with torch.no_grad():
        model(batch.tokens)
    for handle in handles:
        handle.remove()
    return seen


def first(analysis, n, layers):
    """The first `n` of the ranking, as indices by layer."""
    kept = {layer: set() for layer in layers}
    for node, _ in rank_nodes(analysis)[0].features()[:n]:
        kept[int(node.site.partition(".")[2])].add(int(node.feature))
    return kept


@pytest.mark.parametrize("reference", ["patch", "zero", "mean"])
@pytest.mark.parametrize("errors", ["out", "held"])
def test_scores_are_those_of_plain_hooks(case, reference, errors):
    analysis = opened(case, reference=reference)
    config = SufficiencyConfig(sizes=(3, 9), errors=errors)
    record = sufficiency(analysis, config)
    layers, held = (0, 1, 2), errors == "held"
    for i, n in enumerate((3, 9)):
        expected = by_hand(analysis, first(analysis, n, layers), layers, held=held)
        assert record["rows"][FEATURES]["score"][i] == pytest.approx(expected, **EXACT)
    none, every = ({layer: range(n) for layer in layers} for n in (0, 20))
    nothing, replaced = (by_hand(analysis, kept, layers, held=held) for kept in (none, every))
    assert record["nothing"]["score"] == pytest.approx(nothing, **EXACT)
    assert record["replaced"]["score"] == pytest.approx(replaced, **EXACT)
    assert nothing != pytest.approx(replaced, abs=1e-2)


def test_other_layers_run_as_they_are(case):
    analysis = opened(case, reference="zero")
    record = sufficiency(analysis, SufficiencyConfig(layers=(1,), sizes=(2,)))
    assert record["layers"] == [1]
    alone = analysis.by(Suite(suite_of([1], skips=[1]), {}))
    expected = by_hand(analysis, first(alone, 2, [1]), [1])
    assert record["rows"][FEATURES]["score"][0] == pytest.approx(expected, **EXACT)
    # With nothing missing before them, those that are on are all that there are.
    assert record["rows"][FEATURES]["score"][-1] == pytest.approx(
        record["replaced"]["score"], **EXACT
    )


def test_what_is_complete_is_the_model(case):
    """All features with their errors; all neurons, which have none."""
    record = sufficiency(opened(case, reference="zero"), SufficiencyConfig(errors="held"))
    model = record["model"]["score"]
    assert record["replaced"]["score"] == pytest.approx(model, **EXACT)
    for name in (FEATURES, RANDOM, NEURONS, UNTRAINED):
        assert record["rows"][name]["score"][-1] == pytest.approx(model, **EXACT), name
    left_out = sufficiency(opened(case, reference="zero"))
    assert left_out["rows"][NEURONS]["score"][-1] == pytest.approx(model, **EXACT)
    for name in (FEATURES, UNTRAINED):
        assert abs(left_out["rows"][name]["score"][-1] - model) > 1e-2


def test_every_row_has_its_interval_and_padding_changes_nothing(case):
    prompts = case[2]
    small = shared_toy(dtype=torch.float32), case[1], prompts
    record = sufficiency(opened(small, positions="end"))
    assert list(record["rows"]) == [FEATURES, BY_GRAPH, RANDOM, NEURONS, UNTRAINED]
    for row in record["rows"].values():
        assert len(row["score"]) == len(record["sizes"])
        for value, low, high in zip(row["score"], row["low"], row["high"], strict=True):
            assert low <= value <= high
    assert record["sizes"][-1] == max(row["nodes"] for row in record["rows"].values())
    padded = sufficiency(opened((*small[:2], padded_on_the_left(prompts)), positions="end"))
    for name in (FEATURES, BY_GRAPH, NEURONS):
        scores = padded["rows"][name]["score"]
        assert scores == pytest.approx(record["rows"][name]["score"], abs=1e-4), name


def test_random_features_are_the_mean_of_their_draws(case):
    analysis = opened(case)
    both = sufficiency(analysis, SufficiencyConfig(sizes=(5,), draws=2))
    alone = [
        sufficiency(analysis, SufficiencyConfig(sizes=(5,), draws=1, seed=seed)) for seed in (0, 1)
    ]
    found = [one["rows"][RANDOM]["score"][0] for one in alone]
    assert found[0] != found[1]
    assert both["rows"][RANDOM]["score"][0] == pytest.approx(sum(found) / 2, abs=1e-6)


@pytest.mark.parametrize("reference", ["patch", "zero"])
def test_effects_by_the_graph_are_those_that_discover_finds(case, reference):
    model, suite, prompts = case
    settings = DiscoverConfig(method="replacement", reference=reference, positions="sum")
    analysis = opened((model, suite, prompts), **{"reference": reference, "estimator": "ig"})
    there = ReplacedPrompts(analysis.asked(settings))
    assert linear_effects(there) == trace(there, None, silent).effects


def test_metrics_that_no_graph_leads_to_and_mixtures_have_fewer_rows(case):
    record = sufficiency(opened(case, metric="kl", estimator="ig", steps=2))
    assert set(record["rows"]) == {FEATURES, RANDOM, NEURONS, UNTRAINED}
    assert record["model"]["score"] == 0
    experts = opened((toy_of("qwen3-moe"), *case[1:]), reference="mean")
    assert set(sufficiency(experts)["rows"]) == {FEATURES, RANDOM, UNTRAINED}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (1, 7)}, "no transcoder of layer 7: those that are there are of 0, 1, 2"),
        ({"errors": "kept"}, "errors is 'kept': expected out or held"),
        ({"sizes": (0, 3)}, "expected numbers of features, 1 or more"),
        ({"draws": 0}, "draws is 0: expected at least 1"),
    ],
)
def test_what_cannot_be_asked(case, settings, message):
    with pytest.raises(ValueError, match=message):
        sufficiency(opened(case), SufficiencyConfig(**settings))


def test_a_skip_connection_across_layers_is_refused(case):
    found = cross_layer_suite()["clt.0"]
    d = found.W_enc.shape[1]
    weights = dict(found.named_buffers()) | {"W_skip": torch.zeros(3 * d, d, dtype=torch.float64)}
    across = Suite({"clt.0": SparseDictionary(found.spec, weights)}, {})
    with pytest.raises(ValueError, match="clt.0 has a skip connection across layers"):
        sufficiency(opened((case[0], across, case[2])))


def test_cross_layer_features_are_kept_at_every_layer_that_they_write(case):
    suite = Suite({"clt.0": cross_layer_suite()["clt.0"]}, {})
    record = sufficiency(opened((case[0], suite, case[2])), SufficiencyConfig(errors="held"))
    assert record["replaced"]["score"] == pytest.approx(record["model"]["score"], **EXACT)
    assert record["rows"][FEATURES]["score"][-1] == pytest.approx(record["model"]["score"], **EXACT)
    assert record["nothing"]["score"] != pytest.approx(record["model"]["score"], abs=1e-2)
