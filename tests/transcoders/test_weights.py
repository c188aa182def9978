"""Weights between features are what is left of a prompt's edges without the prompt's numbers."""

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from tests.toys import shared_toy, toy_suite
from tests.transcoders.toys import replaced, suite_of, toy_of
from transcoders.sources import FEATURE, TOKEN
from transcoders.weights import (
    Head,
    reading,
    strongest_inputs,
    strongest_outputs,
    strongest_pairs,
    through_heads,
    tokens_read,
)

FAMILIES = ("qwen2", "qwen3")
SITES = ("mlp_in.0-mlp_out.0", "mlp_in.1-mlp_out.1", "attn_out.1", "resid_post.1", "resid_post.2")


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def features_of(model, layer):
    """Features as sources of a prompt, by the layer that they read."""
    of_layer = torch.tensor([model.reads[d] == layer for d in model.sources.dictionary.tolist()])
    return ((model.sources.kind == FEATURE) & of_layer).nonzero().flatten()


def paths(model, R, rows, at, layer, position):
    """What `rows` written at tokens `at` add to targets, by virtual weights and frozen numbers."""
    mixer = model.frozen.layers[layer].mixer
    direct = (R @ rows.T) * (position[:, None] == at)
    by_head = through_heads(model.hooked, layer, R) @ rows.T
    pattern = mixer.pattern.flatten(0, 1)[:, position][:, :, at] * mixer.per_rms[at]
    per_rms = model.frozen.layers[layer].norm.per_rms[position]
    return (direct + (by_head * pattern).sum(0)) * per_rms[:, None]


class Replaced:
    """A replacement model beside the model that it is of."""

    def __init__(self, family):
        self.hooked, self.suite = toy_of(family), suite_of([0, 1, 2])
        self.model = replaced(family, self.suite)

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.fixture(params=FAMILIES, scope="module")
def model(request):
    return Replaced(request.param)


def test_an_edge_to_the_next_layer_is_virtual_weights_times_numbers_of_the_prompt(model):
    sources, targets = features_of(model, 1), features_of(model, 2)
    dictionary = model.suite["mlp_out.2"]
    R = reading(model.hooked, dictionary, model.sources.feature[targets])
    rows = model.suite["mlp_out.1"].W_dec[model.sources.feature[sources]]
    rows = rows * model.sources.activation[sources, None]
    position = model.sources.position
    expected = paths(model, R, rows, position[sources], 2, position[targets])
    found = model.inputs(model.features(targets)).weight[sources].T
    assert found.abs().max() > 0
    close(found, expected)


def test_an_edge_from_a_token_is_its_embeddings_weights(model):
    targets = features_of(model, 0)
    R = reading(model.hooked, model.suite["mlp_out.0"], model.sources.feature[targets])
    embed = model.recorded.embed
    at = torch.arange(len(embed))
    expected = paths(model, R, embed, at, 0, model.sources.position[targets])
    tokens = (model.sources.kind == TOKEN).nonzero().flatten()
    close(model.inputs(model.features(targets)).weight[tokens].T, expected)


@pytest.fixture(scope="module")
def dense():
    """A model, a suite, and every direct weight between its features, by the formula."""
    hooked, suite, found = shared_toy(), toy_suite(*SITES), {}
    for target in suite:
        read = suite.reads_of(target)[0]
        for source in suite:
            if read.kind != "attn_out" and suite.writes_of(source)[0] < read:
                every = torch.arange(suite[target].n_features)
                weights = reading(hooked, suite[target], every) @ suite[source].W_dec.T
                for t, row in enumerate(weights.tolist()):
                    for s, weight in enumerate(row):
                        found[Node(source, s), Node(target, t)] = weight
    return hooked, suite, found


def as_shown(connections):
    return [(c.source, c.target, pytest.approx(c.weight, 1e-9)) for c in connections]


def by_size(found, k):
    ranked = sorted(found.items(), key=lambda item: -abs(item[1]))[:k]
    return [(source, target, weight) for (source, target), weight in ranked]


@pytest.mark.parametrize("products", [7, 2**24], ids=["in parts", "at once"])
def test_the_strongest_are_those_of_all_by_size(dense, products):
    hooked, suite, found = dense
    target, source = Node("resid_post.2", 3), Node("mlp_out.0", 5)
    into = {pair: w for pair, w in found.items() if pair[1] == target}
    outof = {pair: w for pair, w in found.items() if pair[0] == source}
    assert by_size(into, 12) == as_shown(
        strongest_inputs(hooked, suite, target, 12, at_once=products)
    )
    assert by_size(outof, 12) == as_shown(
        strongest_outputs(hooked, suite, source, 12, at_once=products)
    )
    pairs = strongest_pairs(hooked, suite, 30, at_once=products)
    assert by_size(found, 30) == as_shown(pairs)
    assert {c.weight > 0 for c in pairs} == {True, False}, "what inhibits is among them"


def test_inputs_through_heads_are_the_pullbacks_products(dense):
    hooked, suite, _ = dense
    target, heads = Node("resid_post.2", 3), [Head(2, h) for h in range(4)] + [Head(1, 2)]
    R = reading(hooked, suite["resid_post.2"], torch.tensor([3]))
    found = {}
    for head in heads:
        pulled = through_heads(hooked, head.layer, R)[head.head, 0]
        for name in suite:
            if suite.writes_of(name)[0] < Site("attn_out", head.layer):
                for s, weight in enumerate((suite[name].W_dec @ pulled).tolist()):
                    found[Node(name, s), head] = weight
    shown = strongest_inputs(hooked, suite, target, 15, through=heads)
    expected = sorted(found.items(), key=lambda item: -abs(item[1]))[:15]
    assert [(c.source, c.through) for c in shown] == [pair for pair, _ in expected]
    assert [c.weight for c in shown] == pytest.approx([weight for _, weight in expected], 1e-9)
    assert any(c.through == Head(1, 2) and c.source.site == "mlp_out.0" for c in shown)


def test_a_head_after_the_target_is_refused(dense):
    hooked, suite, _ = dense
    with pytest.raises(ValueError, match=r"head 2.0 comes after resid_post.1 reads, at resid_post"):
        strongest_inputs(hooked, suite, Node("resid_post.1", 0), 3, through=[Head(2, 0)])


@pytest.mark.parametrize("products", [7, 2**24], ids=["in parts", "at once"])
def test_the_tokens_read_most_are_those_of_all(dense, products):
    hooked, suite, _ = dense
    vectors = reading(hooked, suite["mlp_out.1"], torch.tensor([2, 4]))
    found, ids = tokens_read(hooked, vectors, 5, at_once=products)
    every = vectors @ hooked.embed.original_component.weight.T
    close(found, every.gather(1, ids))
    close(found.abs(), every.abs().topk(5).values)


def test_what_does_not_read_the_stream_is_refused(dense):
    hooked, suite, _ = dense
    message = "attn_out.1 reads attn_out.1: weights between features are of dictionaries that read"
    with pytest.raises(ValueError, match=message):
        strongest_inputs(hooked, suite, Node("attn_out.1", 0), 3)


@pytest.mark.parametrize(("layer", "message"), [(0, "is a gated delta net"), (3, "are gated by")])
def test_layers_without_heads_of_their_own_weights_are_refused(layer, message):
    hooked = toy_of("qwen3.5")
    R = torch.zeros(1, hooked.cfg.d_model, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        through_heads(hooked, layer, R)
