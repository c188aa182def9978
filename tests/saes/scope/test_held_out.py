"""Which contexts of features are shown and which held out."""

import pytest
import torch

from saes.scope.contexts import Contexts
from saes.scope.held_out import LEAST, SplitConfig, split_contexts


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
