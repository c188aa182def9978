"""Contexts of features, which are shown and which held out, and judgements of them."""

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import token_blocks
from saes.scope.contexts import ContextConfig, Contexts, read_contexts
from saes.scope.held_out import LEAST, SplitConfig, split_contexts
from saes.scope.judgements import mean_interval, score
from tests.toys import speaking_toy, toy_suite

TEXT = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? " * 6
CONFIG = ContextConfig(tokens=96, block_length=16, length=4)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_contexts_hold_what_the_dictionary_makes_of_each_row(family):
    model = speaking_toy(family)
    suite = toy_suite("resid_post.1", "mlp_out.2")
    found = read_contexts(model, suite, ["resid_post.1", "mlp_out.2"], [TEXT], config=CONFIG)
    rows = list(token_blocks([TEXT], model.tokenizer, length=16))[:6]
    for name, contexts in found.items():
        assert len(contexts) == 24
        for number, row in enumerate(rows):
            assert contexts.tokens[4 * number : 4 * number + 4].flatten().tolist() == row.tolist()
            with capture(model, {Site.parse(name)}) as seen, torch.no_grad():
                model(row[None])
            x = seen[Site.parse(name)]
            counted = mean_weights(x, torch.ones(1, 16, dtype=torch.bool)) > 0
            dense = suite[name].encode(x).dense()[0].clamp_min(0) * counted[0, :, None]
            for feature in range(20):
                on, values = contexts.of(feature)
                here = torch.zeros(16, dtype=torch.float64)
                for context, value in zip(on.tolist(), values, strict=True):
                    if context // 4 == number:
                        here[4 * (context % 4) : 4 * (context % 4) + 4] = value.double()
                torch.testing.assert_close(here, dense[:, feature].double(), atol=1e-5, rtol=1e-5)
        counts = [len(contexts.of(feature)[0]) for feature in range(20)]
        assert contexts.counts().tolist() == counts


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"length": 5, "block_length": 16}, "contexts of 5 tokens are not cut from rows of 16"),
        ({"tokens": 8, "block_length": 16, "length": 4}, "tokens is 8: expected at least one row"),
    ],
)
def test_how_text_is_cut_is_checked(fields, match):
    with pytest.raises(ValueError, match=match):
        ContextConfig(**fields)


def test_too_little_text_is_said():
    model = speaking_toy()
    with pytest.raises(ValueError, match="shorter than one row of 16"):
        read_contexts(model, toy_suite("mlp_out.0"), ["mlp_out.0"], ["ab"], config=CONFIG)


def synthetic(n=120, on=60, twice=0):
    """Contexts of 8 tokens, feature 1 of 3 on in the first `on`, at one or two tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, (n, 8), generator=generator)
    for i in range(twice):
        tokens[i + 1] = tokens[0]
    entries = [(c, p, 1 + c + p / 10) for c in range(on) for p in ([2] if c % 2 else [2, 5])]
    context, position, value = zip(*entries, strict=True)
    return Contexts(
        tokens=tokens,
        n_features=3,
        feature=torch.ones(len(context), dtype=torch.long),
        context=torch.tensor(context),
        position=torch.tensor(position),
        value=torch.tensor(value),
    )


def test_nothing_that_was_shown_is_judged():
    contexts, config = synthetic(twice=20), SplitConfig(shown=10, judged=10)
    split = split_contexts(contexts, 1, config)
    assert split is not None
    parts = [[p.tokens for p in part] for part in (split.shown, split.on, split.off, split.wrong)]
    assert [len(part) for part in parts] == [10, 10, 10, 10]
    every = [tokens for part in parts for tokens in part]
    assert len(set(every)) == len(every)


def test_quantiles_marks_and_what_is_nowhere_on():
    split = split_contexts(synthetic(), 1, SplitConfig(shown=10, judged=10, quantiles=5))
    assert split is not None
    peaks = [float(p.values.max()) for p in split.shown]
    assert peaks == sorted(peaks, reverse=True)
    for part in (split.shown, split.on):
        assert sorted(p.quantile for p in part) == sorted([*range(5)] * 2)
        assert all(torch.equal(p.marked, p.values > 0) for p in part)
    strongest = [min(float(p.values.max()) for p in split.on if p.quantile == q) for q in range(5)]
    assert strongest == sorted(strongest, reverse=True)
    assert not any(p.values.any() or p.marked.any() for p in split.off)
    for p in split.wrong:
        assert int(p.marked.sum()) == int((p.values > 0).sum()) > 0
        assert not (p.marked & (p.values > 0)).any()


def test_only_what_is_strong_in_its_context_is_marked():
    split = split_contexts(synthetic(), 1, SplitConfig(shown=10, judged=10, threshold=1.0))
    assert split is not None
    assert {int(p.marked.sum()) for p in split.on} == {1}


def test_few_contexts_are_dealt_out_and_fewer_left():
    split = split_contexts(synthetic(on=15), 1, SplitConfig(shown=10, judged=10))
    assert split is not None
    assert len(split.shown) + len(split.on) + len(split.wrong) == 15
    assert min(len(split.shown), len(split.on), len(split.wrong)) >= 3
    assert split_contexts(synthetic(on=LEAST - 1), 1, SplitConfig()) is None
    assert split_contexts(synthetic(on=30, twice=25), 1, SplitConfig()) is None
    assert split_contexts(synthetic(), 0, SplitConfig()) is None
    assert split_contexts(synthetic(n=60), 1, SplitConfig()) is None


@pytest.mark.parametrize(
    ("fields", "match"),
    [({"shown": 0}, "shown is 0"), ({"threshold": 1.5}, "threshold is 1.5: expected a share")],
)
def test_how_contexts_are_dealt_is_checked(fields, match):
    with pytest.raises(ValueError, match=match):
        SplitConfig(**fields)


TRUTH = [True, False] * 10


def test_who_always_says_yes_is_worth_a_half_and_who_knows_one():
    yes = score(TRUTH, [True] * 20)
    assert (yes.balanced_accuracy, yes.f1) == (0.5, pytest.approx(2 / 3))
    knows = score(TRUTH, TRUTH)
    assert (knows.balanced_accuracy, knows.f1) == (1.0, 1.0)
    assert knows.interval is not None
    # Ten right of ten leave room for a judge who is right nine times in ten.
    assert knows.interval[0] < 0.9
    assert knows.interval[1] == 1.0
    assert score(TRUTH, [not t for t in TRUTH]).balanced_accuracy == 0.0


def test_who_always_says_yes_is_worth_a_half_however_uneven_the_kinds_are():
    assert score([True] * 9 + [False], [True] * 10).balanced_accuracy == 0.5


def test_what_is_not_answered_counts_in_neither():
    said = [True, False, None, None] + [None] * 16
    found = score(TRUTH, said)
    assert (found.answered, found.asked, found.balanced_accuracy) == (2, 20, 1.0)
    assert score(TRUTH, [None] * 20).balanced_accuracy is None
    assert score([True, True], [True, True]).balanced_accuracy is None


def test_intervals_cover_a_judge_who_is_right_three_times_in_four():
    generator, inside = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        right = torch.rand(20, generator=generator) < 0.75
        found = score(TRUTH, [t == r for t, r in zip(TRUTH, right.tolist(), strict=True)])
        assert found.interval is not None
        inside += found.interval[0] <= 0.75 <= found.interval[1]
    assert inside >= 185


def test_a_mean_over_features_has_an_interval_over_them():
    mean, interval = mean_interval([0.5, 0.7, 0.9])
    assert mean == pytest.approx(0.7)
    assert interval is not None
    assert interval[0] == pytest.approx(0.5, abs=0.05)
    assert interval[0] < mean < interval[1]
    assert mean_interval([]) == (None, None)
    assert mean_interval([0.5]) == (0.5, None)
