"""Weights corrected by what is on together: the mean edge of the replacement model."""

import pytest
import torch

from hooked_qwen.nodes import Node
from saes.suite import Suite
from tests.toys import VOCABULARY
from tests.transcoders.toys import suite_of, toy_of
from transcoders.coactivation import coactivation
from transcoders.loadings import heads_of, loadings_of, readers_of
from transcoders.replacement import replace_mlps
from transcoders.sources import FEATURE, TOKEN
from transcoders.weights import Head, reading, strongest_inputs, through_heads, tokens_read

HEADS = [Head(layer, head) for layer in (1, 2) for head in range(4)]
BLOCKS = list(torch.randint(1, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(8)))


@pytest.fixture(scope="module")
def case():
    """A toy, its transcoders, and of a target that is on here and there every edge on the text."""
    model, suite = toy_of("qwen3"), Suite(suite_of([0, 1, 2]), {})
    target = Node("mlp_out.2", _often_on(model, suite))
    edges, on, together = {}, 0, {}
    for tokens in BLOCKS:
        replaced = replace_mlps(model, suite, tokens)
        sources = replaced.sources
        of_target = (sources.dictionary == 2) & (sources.feature == target.feature)
        for number in of_target.nonzero().squeeze(-1).tolist():
            on += 1
            below = torch.arange(sources.before(2))
            readers = readers_of(replaced, [replaced.features(torch.tensor([number]))])
            found = loadings_of(replaced, readers, below, torch.zeros_like(below))
            for s in below.tolist():
                kind = int(sources.kind[s])
                at_token = int(sources.position[s]) == int(sources.position[number])
                if kind == TOKEN:
                    _add(edges, ("token", int(tokens[sources.position[s]]), None), found.direct[s])
                if kind != FEATURE:
                    continue
                key = replaced.names[int(sources.dictionary[s])], int(sources.feature[s])
                _add(edges, (*key, None), found.direct[s])
                if at_token:
                    _add(together, key, torch.tensor(1.0))
                for head, weight in zip(heads_of(replaced), found.heads[s], strict=True):
                    _add(edges, (*key, head), weight)
    means = {key: value / on for key, value in edges.items()}
    shares = {key: value / on for key, value in together.items()}
    return model, suite, target, on, means, shares


def _often_on(model, suite):
    counts = torch.zeros(20)
    for tokens in BLOCKS:
        sources = replace_mlps(model, suite, tokens).sources
        of = sources.feature[sources.dictionary == 2]
        counts.index_add_(0, of, torch.ones(len(of)))
    return int(counts.sort(descending=True).indices[1])


def _add(sums, key, value):
    sums[key] = sums.get(key, 0.0) + float(value)


def test_weight_times_factor_is_the_mean_edge(case):
    model, suite, target, on, means, shares = case
    found = coactivation(model, suite, target, BLOCKS, HEADS)
    assert (found.tokens, found.on) == (27, on)
    assert 1 < on < 27
    R = reading(model, suite[target.site], torch.tensor([target.feature]))
    for name in ("mlp_out.0", "mlp_out.1"):
        W_dec = suite[name].W_dec
        for head in (None, *HEADS):
            vector = R[0] if head is None else through_heads(model, head.layer, R)[head.head, 0]
            if head is not None and head.layer <= int(name[-1]):
                continue
            mean = (W_dec @ vector) * found.factor(name, head)
            expected = [means.get((name, i, head), 0.0) for i in range(20)]
            assert mean.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        there = [shares.get((name, i), 0.0) for i in range(20)]
        assert found.together(name).tolist() == pytest.approx(there)
    mean, ids = tokens_read(model, R, VOCABULARY, factor=found.tokens_factor(VOCABULARY))
    for value, token in zip(mean[0].tolist(), ids[0].tolist(), strict=True):
        assert value == pytest.approx(means.get(("token", token, None), 0.0), rel=1e-6, abs=1e-9)


def test_what_is_read_most_is_ranked_by_the_mean_edge(case):
    model, suite, target, _, means, shares = case
    found = coactivation(model, suite, target, BLOCKS, HEADS)
    for through in (None, HEADS):
        ranked = strongest_inputs(model, suite, target, 6, through=through, read=found)
        heads = {None} if through is None else set(through)
        known = {key: v for key, v in means.items() if key[2] in heads and key[0] != "token"}
        best = sorted(known, key=lambda key: -abs(known[key]))[:6]
        assert [(c.source.site, c.source.feature, c.through) for c in ranked] == best
        for one in ranked:
            assert one.mean == pytest.approx(
                known[one.source.site, one.source.feature, one.through]
            )
            assert one.together == pytest.approx(
                shares.get((one.source.site, one.source.feature), 0.0)
            )
        plain = strongest_inputs(model, suite, target, 60, through=through)
        weights = {(c.source, c.through): c.weight for c in plain}
        both = [c for c in ranked if (c.source, c.through) in weights]
        assert both
        assert all(c.weight == pytest.approx(weights[c.source, c.through]) for c in both)


def test_a_feature_that_is_never_on_has_nothing_together(case):
    model, suite, *_ = case
    never = Suite({n: d for n, d in suite.items() if n == "mlp_out.2"}, {})
    never["mlp_out.2"].b_enc[3] = -1e6
    try:
        with pytest.raises(ValueError, match="mlp_out.2/3 is not on at any of 27 tokens"):
            coactivation(model, never, Node("mlp_out.2", 3), BLOCKS)
    finally:
        never["mlp_out.2"].b_enc[3] = 0.0
