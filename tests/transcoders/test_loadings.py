"""Edges by the heads that carry them, against a model in which one path alone is left."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.sites import Site
from tests.transcoders.toys import FAMILIES, cross_layer_suite, replaced, suite_of, toy_of
from transcoders.attention import edge_by_head
from transcoders.frozen.pattern import PatternInMemory
from transcoders.loadings import heads_of, loadings_of, readers_of
from transcoders.replacement import Targets
from transcoders.sources import BIAS, ERROR, FEATURE, TOKEN
from transcoders.weights import has_plain_heads, reading, through_heads

OWN = 1e-10
SUITES = {
    "per layer": lambda: suite_of([0, 1, 2]),
    "skips": lambda: suite_of([0, 1, 2], skips=[0, 1]),
    "cross-layer": cross_layer_suite,
}


def everything(model):
    """All features and two directions of the last token as targets, all sources but biases."""
    kind = model.sources.kind
    several = list(map(model.features, model.grouped((kind == FEATURE).nonzero().squeeze(-1))))
    directions = torch.randn(2, 24, generator=torch.Generator().manual_seed(7)).double()
    several.append(model.last_token(directions))
    probe = torch.tensor([3, 1])
    several.append(Targets(Site("resid_post", 1), directions, probe, torch.zeros(2).double()))
    sources = (kind != BIAS).nonzero().squeeze(-1)
    n = sum(len(targets.vectors) for targets in several)
    source, target = torch.cartesian_prod(sources, torch.arange(n)).T
    return several, sources, source, target


def weights(model, several, sources):
    """The whole weight of each edge, as `everything` lists them."""
    n = len(model.sources)
    found = [model.inputs(targets).weight for targets in several]
    padded = [torch.cat([w, w.new_zeros(n - len(w), w.shape[1])]) for w in found]
    return torch.cat(padded, 1)[sources].flatten()


def left_with(model, head=None):
    """The same prompt where no head but one takes anything, and no skip connection is there."""
    layers = []
    for number, layer in enumerate(model.frozen.layers):
        pattern = torch.zeros_like(layer.mixer.pattern)
        if head is not None and head.layer == number:
            flat = layer.mixer.pattern.flatten(0, 1)
            pattern.flatten(0, 1)[head.head] = flat[head.head]
        layers.append(
            replace(layer, mixer=replace(layer.mixer, mixing=PatternInMemory(pattern)), skip=None)
        )
    return replace(model, frozen=replace(model.frozen, layers=tuple(layers)))


CASES = [("qwen3", name) for name in SUITES]
CASES += [(family, "per layer") for family in FAMILIES if family != "qwen3"]


@pytest.fixture(params=CASES, ids="-".join, scope="module")
def model(request):
    family, suite = request.param
    return replaced(family, SUITES[suite]())


def test_each_path_is_what_is_left_of_an_edge_without_all_others(model):
    several, sources, source, target = everything(model)
    found = loadings_of(model, readers_of(model, several), source, target)
    scale = float(weights(model, several, sources).abs().max())
    direct = weights(left_with(model), several, sources)
    torch.testing.assert_close(found.direct, direct, atol=OWN * scale, rtol=0)
    heads = heads_of(model)
    assert len({head.layer for head in heads}) == sum(
        layer.mixer.convolution is None for layer in model.frozen.layers
    )
    for column, head in enumerate(heads):
        alone = weights(left_with(model, head), several, sources) - direct
        torch.testing.assert_close(found.heads[:, column], alone, atol=OWN * scale, rtol=0)
    assert any(float(found.heads[:, column].abs().max()) > 0.01 for column in range(len(heads)))


def test_one_layer_apart_nothing_is_left(model):
    """Where there is one layer of heads between, direct and heads are the whole weight."""
    if any(layer.skip is not None for layer in model.frozen.layers):
        pytest.skip("a skip connection is a path of its own")
    several, sources, source, target = everything(model)
    readers = readers_of(model, several)
    found = loadings_of(model, readers, source, target)
    whole = weights(model, several, sources)
    written = model.sources.layer[source]
    one = (readers.layer[target] - written == 1) & (model.sources.dictionary[source] != 0)
    with_heads = {head.layer for head in heads_of(model)}
    one &= torch.tensor([layer in with_heads for layer in readers.layer[target].tolist()])
    total = found.direct + found.heads.sum(1)
    assert int(one.sum()) > 50
    torch.testing.assert_close(total[one], whole[one], atol=OWN * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize("at_once", [1, 700])
def test_how_many_pairs_go_together_changes_nothing(small_chunks, at_once):
    model = replaced("qwen3", suite_of([0, 1, 2]))
    several, _, source, target = everything(model)
    expected = loadings_of(model, readers_of(model, several), source, target)
    small_chunks("transcoders.loadings.PAIRS_AT_ONCE", at_once)
    found = loadings_of(model, readers_of(model, several), source, target)
    torch.testing.assert_close(found.heads, expected.heads, atol=1e-14, rtol=0)
    # In any order of the edges, too.
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    shuffled = loadings_of(model, readers_of(model, several), source[order], target[order])
    torch.testing.assert_close(shuffled.heads, expected.heads[order], atol=1e-14, rtol=0)
    torch.testing.assert_close(shuffled.direct, expected.direct[order], atol=1e-14, rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen3-moe"])
def test_a_path_is_its_prompts_factor_times_a_virtual_weight(family):
    hooked, model = toy_of(family), replaced(family, suite_of([0, 1, 2]))
    several, _, source, target = everything(model)
    found = loadings_of(model, readers_of(model, several), source, target)
    (features,) = [t for t in several if t.site == Site("mlp_in", 2)]
    first = [id(t) for t in several].index(id(features))
    start = sum(len(t.vectors) for t in several[:first])
    numbers = (model.sources.dictionary == 2).nonzero().squeeze(-1)
    order = model.sources.position[numbers].sort(stable=True).indices
    which = model.sources.feature[numbers[order]]
    R = reading(hooked, model.dictionaries[2], which)
    pulled = {layer: through_heads(hooked, layer, R) for layer in range(3)}
    kinds = {TOKEN: 0, FEATURE: 0}
    for edge in range(0, len(source), 7):
        s, t = int(source[edge]), int(target[edge]) - start
        kind = int(model.sources.kind[s])
        if not 0 <= t < len(which) or kind not in kinds or int(model.sources.layer[s]) >= 2:
            continue
        row = model.recorded.embed[int(model.sources.position[s])]
        if kind == FEATURE:
            number = int(model.sources.dictionary[s])
            row = model.dictionaries[number].W_dec[int(model.sources.feature[s])]
        expected = float(found.direct_of_prompt[edge]) * float(row @ R[t])
        assert float(found.direct[edge]) == pytest.approx(expected, abs=OWN)
        for column, head in enumerate(heads_of(model)):
            virtual = float(row @ pulled[head.layer][head.head, t])
            product = float(found.heads_of_prompt[edge, column]) * virtual
            assert float(found.heads[edge, column]) == pytest.approx(product, abs=OWN)
        kinds[kind] += 1
    assert min(kinds.values()) > 5
    errors = model.sources.kind[source] == ERROR
    assert not found.heads_of_prompt[errors].any()
    assert not found.direct_of_prompt[errors].any()


def test_gated_heads_and_delta_nets_have_no_part_of_the_weights_alone():
    hooked, model = toy_of("qwen3.5"), replaced("qwen3.5", suite_of([0, 1, 2]))
    several, _, source, target = everything(model)
    found = loadings_of(model, readers_of(model, several), source, target)
    assert {head.layer for head in heads_of(model)} == {3}
    assert not has_plain_heads(hooked, 3)
    assert found.heads.any()
    assert not found.heads_of_prompt.any()


def test_one_edge_is_a_row_of_many(model):
    several, _, source, target = everything(model)
    found = loadings_of(model, readers_of(model, several), source, target)
    layer = max(int(t.site.layer) for t in several if t.site.kind == "mlp_in")
    start = 0
    for targets in several:
        if targets.site == Site("mlp_in", layer):
            break
        start += len(targets.vectors)
    features = (model.sources.kind == FEATURE) & (
        model.sources.dictionary == model.reads.index(layer)
    )
    numbers = features.nonzero().squeeze(-1)
    last = int(numbers[model.sources.position[numbers].sort(stable=True).indices[-1]])
    for edge in ((target == start + len(numbers) - 1).nonzero().squeeze(-1)[::5]).tolist():
        s = int(source[edge])
        if int(model.sources.layer[s]) >= layer:
            continue
        one = edge_by_head(model, s, last)
        assert one.direct == pytest.approx(float(found.direct[edge]), abs=OWN)
        by_head = dict(zip(heads_of(model), found.heads[edge].tolist(), strict=True))
        assert one.heads == pytest.approx({h: by_head[h] for h in one.heads}, abs=OWN)
