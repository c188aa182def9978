"""The replacement model is the model, and every target is the sum of what reaches it."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.relevance import relevance_rules
from hooked_qwen.sites import Site
from tests.toys import full_suite, shared_toy, toy, toy_suite
from tests.transcoders.toys import (
    FAMILIES,
    TOKENS,
    cross_layer_suite,
    replaced,
    suite_of,
    toy_of,
)
from transcoders.frozen.model import EMBED
from transcoders.replacement import replace_mlps
from transcoders.sources import BIAS, ERROR, FEATURE, TOKEN

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


def test_the_adjoint_is_autograd_through_the_frozen_maps(any_family):
    model = any_family
    n, d = len(TOKENS), 24
    generator = torch.Generator().manual_seed(4)
    sites = [EMBED, *(Site("mlp_out", layer) for layer in range(len(model.frozen.layers)))]

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    vectors, position = draw(3, d), torch.tensor([2, 5, 3])
    for site in (
        Site("mlp_in", 2),
        Site("mlp_in", 0),
        Site("resid_post", 2),
        Site("resid_post", 1),
    ):
        writes = {s: draw(n, 1, d).requires_grad_() for s in sites}
        pushed = model.frozen.push(writes)
        read = (
            pushed.resid_post[site.layer]
            if site.kind == "resid_post"
            else pushed.mlp_in[site.layer]
        )
        pulled = dict(model.frozen.pull(site, vectors, position))
        for i, (v, at) in enumerate(zip(vectors, position.tolist(), strict=True)):
            grads = torch.autograd.grad(
                (read[at, 0] * v).sum(), list(writes.values()), retain_graph=True, allow_unused=True
            )
            for s, grad in zip(writes, grads, strict=True):
                expected = torch.zeros(n, d).double() if grad is None else grad[:, 0]
                found = torch.zeros_like(expected)
                if s in pulled:
                    found[: len(pulled[s])] = pulled[s][:, i]
                assert largest(found - expected) < OWN


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_it_is_the_models_own_gradient_with_norms_and_patterns_constant(family):
    hooked = toy_of(family)
    model = replace_mlps(hooked, suite_of([2]), TOKENS)
    layer, at = 2, 4
    sites = [EMBED, *(Site("mlp_out", below) for below in range(layer))]
    leaves = {site: (torch.zeros(1, len(TOKENS), 24).double()).requires_grad_() for site in sites}
    edits = {site: lambda x, leaf=leaf: x.detach() + leaf for site, leaf in leaves.items()}
    source = model.sources.dictionary == 0
    chosen = (source & (model.sources.position == at)).nonzero().squeeze(-1)
    targets = model.features(chosen)
    reads = {Site("mlp_in", layer)}
    with relevance_rules(hooked), intervene(hooked, edits), capture(hooked, reads) as seen:
        hooked(TOKENS[None])
    pulled = dict(model.frozen.pull(targets.site, targets.vectors, targets.position))
    for i in range(len(chosen)):
        read = (seen[Site("mlp_in", layer)][0, at] * targets.vectors[i]).sum()
        grads = torch.autograd.grad(read, list(leaves.values()), retain_graph=True)
        for site, grad in zip(leaves, grads, strict=True):
            found = torch.zeros_like(grad[0])
            found[: len(pulled[site])] = pulled[site][:, i]
            assert largest(found - grad[0]) < MODELS * max(largest(grad), 1e-3)
            assert not grad[0, at + 1 :].any()


def test_the_gradient_under_the_freeze_does_not_depend_on_other_tokens(any_family):
    model = any_family
    n, d = len(TOKENS), 24
    generator = torch.Generator().manual_seed(6)
    weights = torch.randn(d, generator=generator, dtype=torch.float64)
    grads = []
    for scale in (0.0, 30.0):
        embed = torch.randn(n, 1, d, generator=generator, dtype=torch.float64) * scale
        embed.requires_grad_()
        read = model.frozen.push({EMBED: embed}).mlp_in[2][-1, 0] @ weights
        grads.append(torch.autograd.grad(read, embed)[0])
    assert largest(grads[0]) > 1e-3
    assert largest(grads[0] - grads[1]) < OWN * largest(grads[0])


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


def test_totals_are_sums_over_all_paths_of_edges(any_suite):
    """Of w(s -> t) = a_s * d t / d a_s, direct edges make total ones: features pass all on."""
    model, sources = any_suite, any_suite.sources
    direction = torch.randn(1, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    targets = model.last_token(direction)
    total = torch.zeros(len(sources)).double()
    inputs = model.inputs(targets)
    total[: len(inputs.weight)] = inputs.weight[:, 0]
    features = (sources.kind == FEATURE).nonzero().squeeze(-1)
    for group in model.grouped(features, 1):
        (t,) = group.tolist()
        weight = model.inputs(model.features(group)).weight[:, 0]
        total[: len(weight)] += weight * (total[t] / sources.activation[t])
    found = model.totals(targets)
    moved = found.slope * sources.activation
    token = (found.gradient[EMBED] * model.recorded.embed).sum(-1)
    moved[: len(TOKENS)] = token
    for layer, written in enumerate(sources.layers):
        of = (sources.kind == ERROR) & (sources.layer == layer)
        moved[of] = (found.gradient[Site("mlp_out", layer)] * written.error).sum(-1)
    assert largest(moved - torch.where(sources.kind == BIAS, 0.0, total)) < OWN * largest(total)


def test_rows_that_are_not_kept_are_made_again(any_suite):
    model = any_suite
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    group = next(model.grouped(features))
    kept = model.inputs(model.features(group)).weight
    anew = replace(model, written=replace(model.written, kept=0))
    assert torch.equal(anew.inputs(anew.features(group)).weight, kept)


def test_a_layer_without_a_transcoder_is_all_error():
    model = replaced("qwen3", suite_of([1]))
    for layer, written in enumerate(model.sources.layers):
        whole = model.recorded.mlp_out[layer]
        assert torch.equal(written.error, whole) == (layer != 1)


def test_of_a_suite_the_transcoders_are_taken():
    model = replace_mlps(shared_toy(), full_suite(), TOKENS)
    assert [d.name for d in model.dictionaries] == ["mlp_out.1"]
    assert int((model.sources.kind == TOKEN).sum()) == len(TOKENS)


def test_without_transcoders_it_says_so():
    with pytest.raises(
        ValueError, match="the dictionaries that are there are mlp_out.1: train"
    ) as error:
        replace_mlps(shared_toy(), toy_suite("mlp_out.1"), TOKENS)
    assert "\n" not in str(error.value)


def test_an_unknown_norm_is_named():
    hooked = toy()
    norm = hooked.blocks[1].ln2.original_component
    norm.__class__ = type("OddNorm", (type(norm),), {})
    with pytest.raises(ValueError, match="cannot freeze the norm OddNorm: expected one of Qwen2"):
        replace_mlps(hooked, suite_of([1]), TOKENS)
