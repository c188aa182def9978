"""Edges by the heads that carry them, and a head's score by pairs of what it reads."""

import math

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from tests.transcoders.toys import TOKENS, cross_layer_suite, suite_of, toy_of
from transcoders.attention import attention_score, edge_by_head
from transcoders.replacement import replace_mlps
from transcoders.sources import ERROR, FEATURE, TOKEN
from transcoders.weights import Head

FAMILIES = ("qwen2", "qwen3", "qwen3-moe")
OWN, MODELS = 1e-10, 1e-5
LAST = len(TOKENS) - 1


class Replaced:
    def __init__(self, family, suite):
        self.hooked = toy_of(family)
        self.model = replace_mlps(self.hooked, suite, TOKENS)


@pytest.fixture(params=FAMILIES, scope="module")
def replaced(request):
    return Replaced(request.param, suite_of([0, 1, 2]))


def sources(model, kind, layer):
    at = (model.sources.kind == kind) & (model.sources.layer == layer)
    return at.nonzero().flatten().tolist()


def test_the_paths_of_an_edge_to_the_next_layer_add_up_to_it(replaced):
    model, target = replaced.model, sources(replaced.model, FEATURE, 1)[-1]
    found = model.inputs(model.features(torch.tensor([target]))).weight[:, 0]
    chosen = [*sources(model, FEATURE, 0), *sources(model, ERROR, 0)]
    for source in chosen:
        by_head = edge_by_head(model, source, target)
        assert abs(by_head.rest) < OWN * float(found.abs().max())
        assert math.isclose(by_head.weight, float(found[source]), abs_tol=OWN)
    assert {head.layer for head in by_head.heads} == {1}


def test_what_takes_more_than_one_head_is_the_rest(replaced):
    """From a token to a feature two layers up: also through heads of three layers in turn."""
    model, target = replaced.model, sources(replaced.model, FEATURE, 2)[-1]
    token = sources(model, TOKEN, -1)[1]
    by_head = edge_by_head(model, token, target)
    assert {head.layer for head in by_head.heads} == {0, 1, 2}
    assert abs(by_head.rest) > 1e-6
    found = model.inputs(model.features(torch.tensor([target]))).weight[token, 0]
    assert math.isclose(by_head.weight, float(found), rel_tol=OWN)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_scores_are_sums_of_their_terms_and_give_the_models_patterns(replaced, layer):
    model = replaced.model
    for number in (0, 3):
        scores = [
            attention_score(replaced.hooked, model, Head(layer, number), LAST, key).total
            for key in range(LAST + 1)
        ]
        pattern = model.frozen.layers[layer].mixer.pattern.flatten(0, 1)[number, LAST]
        found = torch.tensor(scores, dtype=torch.float64).softmax(0)
        torch.testing.assert_close(found, pattern, atol=MODELS, rtol=MODELS)


@pytest.mark.parametrize(
    "suite",
    [lambda: suite_of([0, 1, 2], skips=[0, 1]), lambda: suite_of([1]), cross_layer_suite],
    ids=["skip connections", "one transcoder", "cross-layer"],
)
def test_what_stands_at_a_token_does_not_depend_on_the_dictionaries(suite):
    """Whatever the transcoders, their errors make the stream the model's."""
    plain, other = Replaced("qwen2", suite_of([0, 1, 2])), Replaced("qwen2", suite())
    head = Head(2, 1)
    expected = attention_score(plain.hooked, plain.model, head, LAST, 2)
    found = attention_score(other.hooked, other.model, head, LAST, 2)
    assert found.query != expected.query
    assert math.isclose(found.total, expected.total, rel_tol=1e-6)


def by_the_models_modules(replaced, layer, head, x_query, query, key):
    """A head's score by the model's own projections, where the query's stream is `x_query`.

    The denominators are those of the prompt.
    """
    block = replaced.hooked.blocks[layer]
    own, model = block.attn.original_component, replaced.model
    norm, scale = block.ln1.original_component, model.frozen.layers[layer].mixer.per_rms
    stream = model.read(Site("resid_post", layer - 1))

    def projected(which, number, x, at):
        linear = block.attn.get_submodule(which).original_component
        span = slice(number * own.head_dim, (number + 1) * own.head_dim)
        clean, given = (linear(y * norm.weight * scale[at])[span] for y in (stream[at], x))
        if hasattr(own, f"{which}_norm"):
            of_head = getattr(own, f"{which}_norm").original_component
            root = (clean.square().mean() + of_head.variance_epsilon).sqrt()
            given = given * of_head.weight / root
        rotary = replaced.hooked.rotary_emb.original_component
        cos, sin = (t[0, 0].double() for t in rotary(x[None, None], torch.tensor([[at]])))
        half = own.head_dim // 2
        return given * cos + torch.cat([-given[half:], given[:half]]) * sin

    q = projected("q", head, x_query, query)
    k = projected("k", head // own.num_key_value_groups, stream[key], key)
    return float(q @ k) * own.head_dim**-0.5


def test_a_features_row_is_what_the_score_loses_without_it(replaced):
    """Taken out of the query's stream, denominators held."""
    model, layer, key = replaced.model, 2, 1
    score = attention_score(replaced.hooked, model, Head(layer, 2), LAST, key)
    x = model.read(Site("resid_post", layer - 1))[LAST]
    whole = by_the_models_modules(replaced, layer, 2, x, LAST, key)
    assert math.isclose(score.total, whole, rel_tol=OWN)
    features = [part for part in score.query if isinstance(part, Node) and part.kind == "feature"]
    assert len(features) == 8, "four on at each of two layers"
    for part in features:
        number = model.names.index(part.site)
        of = (model.sources.dictionary == number) & (model.sources.position == LAST)
        (source,) = (of & (model.sources.feature == part.feature)).nonzero().flatten().tolist()
        row = model.dictionaries[number].W_dec[part.feature] * model.sources.activation[source]
        without = by_the_models_modules(replaced, layer, 2, x - row, LAST, key)
        lost = float(score.terms[score.query.index(part)].sum())
        assert math.isclose(whole - without, lost, rel_tol=1e-7, abs_tol=OWN)


def test_the_strongest_pairs_are_the_largest_by_size(replaced):
    score = attention_score(replaced.hooked, replaced.model, Head(1, 0), LAST, 1)
    shown = score.strongest(5)
    sizes = [abs(term) for *_, term in shown]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes == pytest.approx(score.terms.flatten().abs().topk(5).values.tolist())
    query, key, term = shown[0]
    at = score.query.index(query), score.key.index(key)
    assert float(score.terms[at]) == term


@pytest.mark.parametrize("family", ["qwen3.5", "qwen3.5-moe"])
def test_scores_of_gated_attention_give_the_models_patterns(family):
    """Its queries have their gates beside them, and only a part of each head is turned."""
    replaced = Replaced(family, suite_of([0, 1, 2]))
    model, layer = replaced.model, 3
    for number in (0, 3):
        scores = [
            attention_score(replaced.hooked, model, Head(layer, number), LAST, key).total
            for key in range(LAST + 1)
        ]
        pattern = model.frozen.layers[layer].mixer.pattern.flatten(0, 1)[number, LAST]
        found = torch.tensor(scores, dtype=torch.float64).softmax(0)
        torch.testing.assert_close(found, pattern, atol=MODELS, rtol=MODELS)


def test_a_later_key_and_a_layer_without_heads_are_refused(replaced):
    with pytest.raises(ValueError, match="token 1 cannot look at token 3, which comes after"):
        attention_score(replaced.hooked, replaced.model, Head(0, 0), 1, 3)
    hybrid = Replaced("qwen3.5", suite_of([0, 1, 2]))
    with pytest.raises(ValueError, match="layer 0 is a gated delta net: scores are of attention"):
        attention_score(hybrid.hooked, hybrid.model, Head(0, 0), 3, 1)
