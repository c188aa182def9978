"""The replacement model is the model, and every target is the sum of what reaches it."""

import pytest
import torch

from tests.transcoders.toys import (
    FAMILIES,
    TOKENS,
    cross_layer_suite,
    replaced,
    suite_of,
    toy_of,
)
from transcoders.replacement import replace_mlps
from transcoders.sources import FEATURE

OWN, MODELS = 1e-10, 1e-5
"Relative: of our frozen maps in float64, and of the model, whose norms run in float32."
SUITES = {
    "every layer": lambda: suite_of([0, 1, 2]),
    "one layer": lambda: suite_of([1]),
    "a skip connection": lambda: suite_of([0, 1, 2], skips=[1, 2]),
    "cross-layer": cross_layer_suite,
}


def largest(x):
    return float(x.abs().max())


@pytest.fixture(params=FAMILIES, scope="module")
def any_family(request):
    return replaced(request.param, suite_of([0, 1, 2], skips=[1]))


@pytest.fixture(params=SUITES, scope="module")
def any_suite(request):
    return replaced("qwen2", SUITES[request.param]())


def each_target(model):
    """Every feature's inputs, and three directions at the last token."""
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    for group in model.grouped(features):
        yield model.inputs(model.features(group)), model.pre_activation[group], group
    directions = torch.randn(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    read = directions @ model.pushed.last[-1, 0]
    yield model.inputs(model.last_token(directions)), read, None


def check_sums(model):
    for inputs, expected, _ in each_target(model):
        found = inputs.weight.sum(0) + inputs.bias
        assert largest(found - expected) < OWN * largest(expected)


def test_with_errors_every_mlp_reads_what_it_does_in_the_model(any_family):
    model = any_family
    for found, read in zip(model.pushed.mlp_in, model.recorded.mlp_in, strict=True):
        assert largest(found[:, 0] - read) < MODELS * largest(read)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_errors_logits_are_unchanged(family):
    hooked = toy_of(family)
    model = replace_mlps(hooked, suite_of([0, 2]), TOKENS)
    head = hooked.unembed.original_component.weight
    logits = model.pushed.last[-1, 0] @ head.T
    assert largest(logits - model.recorded.logits) < MODELS * largest(logits)
    expected = hooked(TOKENS[None])[0, -1]
    assert largest(model.recorded.logits - expected) < MODELS * largest(expected)


def test_incoming_edges_and_bias_sum_to_the_pre_activation(any_family):
    check_sums(any_family)


def test_so_they_do_with_any_transcoders(any_suite):
    check_sums(any_suite)


@pytest.mark.parametrize("suite", SUITES)
def test_pre_activations_are_those_of_the_models_own_run(suite):
    dictionaries = SUITES[suite]()
    hooked = toy_of("qwen2")
    model = replace_mlps(hooked, dictionaries, TOKENS)
    for number, dictionary in enumerate(model.dictionaries):
        of = model.sources.dictionary == number
        read = model.recorded.mlp_in[dictionary.source.layer]
        pre = dictionary.pre_activations(read)
        expected = pre[model.sources.position[of], model.sources.feature[of]]
        assert largest(model.pre_activation[of] - expected) < MODELS * largest(expected)
        # Every one of the k features that are on is a source.
        assert int(of.sum()) == int((dictionary.encode(read).value != 0).sum())


def test_doubling_a_feature_with_all_frozen_moves_later_pre_activations_by_its_edges(any_suite):
    model, sources = any_suite, any_suite.sources
    features = (sources.kind == FEATURE).nonzero().squeeze(-1)
    some = features[torch.linspace(0, len(features) - 1, 9).long()]
    columns = {int(s): torch.zeros(len(sources)).double() for s in some}
    for inputs, _, group in each_target(model):
        for s in some.tolist():
            if group is not None and s < len(inputs.weight):
                columns[s][group] = inputs.weight[s]
    for s, expected in columns.items():
        dictionary = model.dictionaries[int(sources.dictionary[s])]
        writes = {}
        for site, rows in dictionary.by_site(dictionary.W_dec).items():
            writes[site] = torch.zeros(len(TOKENS), 1, 24).double()
            row = rows[sources.feature[s]] * sources.activation[s]
            writes[site][sources.position[s], 0] = row
        moved = model.frozen.push(writes)
        for t in features.tolist():
            of = model.dictionaries[int(sources.dictionary[t])]
            read = moved.mlp_in[of.source.layer][sources.position[t], 0]
            change = read @ of.W_enc[sources.feature[t]]
            assert abs(float(change - expected[t])) < OWN


def test_how_targets_are_grouped_changes_nothing_but_rounding(any_suite):
    model = any_suite
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)

    def all_weights(at_once):
        found = torch.zeros(len(model.sources), len(model.sources)).double()
        groups = list(model.grouped(features, at_once))
        for group in groups:
            weight = model.inputs(model.features(group)).weight
            found[: len(weight), group] = weight
        return found, len(groups)

    (whole, few), (single, many) = all_weights(2**25), all_weights(1)
    assert many == len(features) > few
    assert largest(whole - single) < OWN


def test_a_group_is_bounded_by_bytes_and_ends_with_its_layer(any_suite):
    model = any_suite
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    groups = list(model.grouped(features, 2**14))
    assert torch.equal(torch.cat(groups).sort().values, features)
    for group in groups:
        layer = model.read_layer(group).unique()
        assert len(layer) == 1
        assert len(group) == 1 or model.sources.before(int(layer)) * len(group) * 8 <= 2**14
