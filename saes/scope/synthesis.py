"""Features that a target set turns on and a training set never does, and what added texts bring.

    missing        T = {i : a_i >= least, b_i = 0}     a_i, b_i: target and training texts with i on
    covered        share of the features on in the target that training and added texts turn on
    shared         |G(text) and G(other)| / |G(text)|,  G the distinct runs of n tokens; the largest
                   over others: 1 where another text has all of it
    cosine         of mean residuals, the mean over the training texts taken off; the largest

Scores are of the classifier that is fitted on training and added texts and judged on others:
logistic regression on the mean residual, standardised, and on words (TF-IDF).

Source: Qwen-Scope, arXiv:2605.11887 (synthesis for missing features). Differs: distance to what is
known, and equal numbers of other texts stand beside the texts that were asked for.

Axes: `texts`; `missing` features; `d` the width of the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval, resamples
from saes.evaluation.probing import standardised
from saes.scope.classify import WORD
from saes.scope.coverage import Incidence

NGRAM = 3
"Tokens of a run."


def missing_features(
    training: Incidence, target: Incidence, *, least: int = 2
) -> Int[Tensor, " missing"]:
    """Features on in `least` target texts and in no training text; those of most texts first."""
    have = target.unit.bincount(minlength=target.units)
    known = training.unit.bincount(minlength=target.units)
    missing = ((have >= least) & (known == 0)).nonzero().flatten()
    return missing[have[missing].argsort(descending=True, stable=True)]


def on_in(incidence: Incidence) -> Bool[Tensor, " units"]:
    """Whether each unit is on in some sample."""
    return torch.zeros(incidence.units, dtype=torch.bool).index_fill_(0, incidence.unit, True)


def covered_share(wanted: Bool[Tensor, " units"], *sets: Incidence) -> float:
    """The share of the wanted units that some of the sets turn on."""
    on = torch.zeros_like(wanted)
    for one in sets:
        on |= on_in(one)
    return float((wanted & on).sum() / wanted.sum())


def nearest_shared(
    rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]], *, n: int = NGRAM
) -> list[float]:
    """Of each row the largest share of its distinct runs of n tokens that another row has.

    A row shorter than n counts as one run.
    """
    known = [_runs(other, n) for other in others]
    found = []
    for row in rows:
        own = _runs(row, n)
        found.append(max((len(own & one) / len(own) for one in known), default=0.0))
    return found


def _runs(row: Sequence[int], n: int) -> set[tuple[int, ...]]:
    return {tuple(row[i : i + n]) for i in range(max(1, len(row) - n + 1))}


def nearest_cosine(
    x: Float[Tensor, "texts d"], training: Float[Tensor, "others d"]
) -> Float[Tensor, " texts"]:
    """The largest cosine of each text's mean residual with a training text's, both centred."""
    mean = training.mean(0)
    own, others = ((y - mean).double() for y in (x, training))
    own, others = (y / y.norm(dim=-1, keepdim=True).clamp_min(1e-30) for y in (own, others))
    return (own @ others.T).amax(1)


def right_by_stream(
    x: Float[Tensor, "texts d"],
    labels: Sequence[str],
    test: Float[Tensor, "others d"],
    test_labels: Sequence[str],
) -> Float[Tensor, " others"]:
    """Which test texts are told right by their mean residuals: 1, else 0."""
    both = torch.cat([x, test]).double()
    both = standardised(both, torch.arange(len(both)) < len(x)).numpy()
    found = LogisticRegression(max_iter=2000).fit(both[: len(x)], list(labels))
    return _right(found.predict(both[len(x) :]).tolist(), test_labels)


def right_by_words(
    texts: Sequence[str],
    labels: Sequence[str],
    test: Sequence[str],
    test_labels: Sequence[str],
) -> Float[Tensor, " others"]:
    """Which test texts are told right by their words: 1, else 0."""
    words = TfidfVectorizer(token_pattern=WORD)
    seen = words.fit_transform(texts)
    found = LogisticRegression(max_iter=2000).fit(seen, list(labels))
    return _right(found.predict(words.transform(test)).tolist(), test_labels)


def _right(said: Sequence[str], labels: Sequence[str]) -> Float[Tensor, " others"]:
    return torch.tensor([float(a == b) for a, b in zip(said, labels, strict=True)]).double()


@dataclass(frozen=True, kw_only=True)
class AccuracyScore:
    """The accuracy of a classifier, and what it is ahead of the one of real texts alone."""

    accuracy: float
    interval: Interval
    "95 % over test texts, each the mean over seeds"
    by_seed: list[float]
    ahead: float
    ahead_interval: Interval


def score_of(
    right: Float[Tensor, "seeds others"], real: Float[Tensor, " others"], *, seed: int = 0
) -> AccuracyScore:
    """From which test texts are told right under each seed, and by real texts alone."""
    each, drawn = right.mean(0), resamples(right.shape[1], seed=seed)
    return AccuracyScore(
        accuracy=float(each.mean()),
        interval=interval(drawn @ each),
        by_seed=right.mean(1).tolist(),
        ahead=float((each - real).mean()),
        ahead_interval=interval(drawn @ (each - real)),
    )
