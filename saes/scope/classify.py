"""How well features tell texts apart, beside what simple methods do.

From texts with and without something, in three parts: what is chosen and fitted comes from the
first, how many features and every threshold from the second, figures are of the third.

    features            a detector, `saes.scope.detector`
    untrained           the same of a suite with random weights
    linear probe        logistic regression on the residual stream's mean, of one layer
    difference of means  along the difference of the two means of it
    words               TF-IDF of the text's words, logistic regression

The layer of the two in the middle is the one whose scores rank the second part best.

    F1, accuracy        at the threshold
    AUROC               P(a positive text's score is above a negative one's), ties half
    TPR at 1 % FPR      the share of positive texts above a threshold that 1 % of negative ones pass

Axes: `texts`; `d` the width of the stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import torch
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hooked_qwen.sites import Site
from saes.evaluation.bootstrap import Interval, interval, resamples
from saes.evaluation.probing import logistic, standardised
from saes.scope.activity import Activity
from saes.scope.detector import Across, Detector, best_threshold, chosen_detector

SIZES = (1, 2, 5, 10, 20, 50)
"Numbers of features that are tried."
FALSE_POSITIVES = 0.01
WORD = r"[^\W\u3000-\u9fff]+|[\u3000-\u9fff]"
"Any run of letters or digits, and any character of scripts without spaces."
Scores = Float[Tensor, " texts"]
Choice = Literal["one", "several", "chosen"]
"Features of one dictionary, of several, or what the held-out part chooses of the two."


@dataclass(frozen=True)
class Parts:
    """Which texts are for what."""

    train: Bool[Tensor, " texts"]
    held_out: Bool[Tensor, " texts"]
    "for numbers of features and thresholds"
    test: Bool[Tensor, " texts"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How well the test part is told apart."""

    f1: float
    auroc: float
    tpr: float
    "at 1 % FPR"
    accuracy: float
    f1_interval: Interval
    auroc_interval: Interval
    "95 %, over texts"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to tell the texts apart."""

    name: str
    figures: Figures
    threshold: float
    choice: str
    "what the held-out part chose, in words"
    scores: Scores = field(repr=False, compare=False)
    "of every text, whatever it is for"


def parts_of(positive: Bool[Tensor, " texts"], *, seed: int = 0) -> Parts:
    """Half of the texts of each kind to train, a fifth held out, the rest to test.

    Raises `ValueError` for fewer than four of a kind.
    """
    train, held_out = torch.zeros_like(positive), torch.zeros_like(positive)
    generator = torch.Generator().manual_seed(seed)
    for kind, name in ((positive, "positive"), (~positive, "negative")):
        members = kind.nonzero().flatten()
        n = len(members)
        if n < 4:
            raise ValueError(f"there are {n} {name} texts: expected at least 4")
        order = members[torch.randperm(n, generator=generator)]
        first, second = round(0.5 * n), max(1, round(0.2 * n))
        train[order[:first]] = True
        held_out[order[first : first + second]] = True
    return Parts(train, held_out, ~(train | held_out))


def only(parts: Parts, positive: Bool[Tensor, " texts"], count: int, *, seed: int = 0) -> Parts:
    """The same test part, with `count` texts of each kind to train and hold out, as few as that.

    A third of them, one at least, is held out.
    """
    generator = torch.Generator().manual_seed(seed)
    train, held_out = torch.zeros_like(positive), torch.zeros_like(positive)
    for kind in (positive, ~positive):
        members = ((parts.train | parts.held_out) & kind).nonzero().flatten()
        some = members[torch.randperm(len(members), generator=generator)][:count]
        split = max(1, len(some) // 3)
        held_out[some[:split]] = True
        # Of a single text both are made: it is all that there is.
        train[some[split:] if len(some) > 1 else some] = True
    return Parts(train, held_out, parts.test)


def by_features(
    activity: Activity,
    positive: Bool[Tensor, " texts"],
    parts: Parts,
    *,
    name: str = "features",
    sizes: Sequence[int] = SIZES,
    across: Choice = "one",
) -> tuple[Method, Detector | None]:
    """The detector whose number of features ranks the held-out part best; the fewest of equals.

    With `chosen` both ways to choose as many features are held against each other too; of equals
    those of one dictionary are taken.
    """
    ways: tuple[Across, ...] = ("one", "several") if across == "chosen" else (across,)
    train = parts.train.nonzero().flatten()
    own = activity.of_texts(train)
    best: tuple[float, Detector, Scores] | None = None
    for k, way in product(sizes, ways):
        found = chosen_detector(own, positive[train], k, across=way)
        if found is None:
            continue
        scores = found.scores(activity)
        value = auroc(scores[parts.held_out], positive[parts.held_out])
        if best is None or value > best[0] + 1e-9:
            best = value, found, scores
    if best is None:
        nothing = torch.zeros(len(positive), dtype=torch.float64)
        return _judged(name, nothing, positive, parts, "no feature is on more often"), None
    _, found, scores = best
    of = ", ".join(dict.fromkeys(node.site for node in found.nodes))
    method = _judged(name, scores, positive, parts, f"{len(found.nodes)} of {of}")
    return method, replace(found, threshold=method.threshold)


def by_stream(
    means: Mapping[Site, Float[Tensor, "texts d"]],
    positive: Bool[Tensor, " texts"],
    parts: Parts,
) -> list[Method]:
    """A linear probe and the difference of means, each at the layer that serves it best."""
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "linear probe": _probe,
        "difference of means": lambda x, y: x[y].mean(0) - x[~y].mean(0),
    }
    found = []
    for name, direction in ways.items():
        best: tuple[float, Site, Scores] | None = None
        for site, x in means.items():
            x, y = standardised(x.double(), parts.train), positive[parts.train]
            scores = x @ direction(x[parts.train], y)
            value = auroc(scores[parts.held_out], positive[parts.held_out])
            if best is None or value > best[0] + 1e-9:
                best = value, site, scores
        assert best is not None, "there is a layer"
        found.append(_judged(name, best[2], positive, parts, str(best[1])))
    return found


def _probe(x: Float[Tensor, "train d"], positive: Bool[Tensor, " train"]) -> Float[Tensor, " d"]:
    return logistic(x, positive)[0]


def by_words(texts: Sequence[str], positive: Bool[Tensor, " texts"], parts: Parts) -> Method:
    """The words of the texts; those that the training part has."""
    train = parts.train.nonzero().flatten().tolist()
    words = TfidfVectorizer(token_pattern=WORD)
    seen = words.fit_transform([texts[i] for i in train])
    regression = LogisticRegression(max_iter=1000).fit(seen, positive[train].numpy())
    scores = torch.from_numpy(regression.decision_function(words.transform(texts)))
    choice = f"{len(words.vocabulary_):,} words"
    return _judged("words", scores.double(), positive, parts, choice)


def _judged(
    name: str, scores: Scores, positive: Bool[Tensor, " texts"], parts: Parts, choice: str
) -> Method:
    threshold = best_threshold(scores[parts.held_out], positive[parts.held_out])
    figures = figures_of(scores[parts.test], positive[parts.test], threshold)
    return Method(name=name, figures=figures, threshold=threshold, choice=choice, scores=scores)


def judged_on(
    method: Method, positive: Bool[Tensor, " texts"], judged: Bool[Tensor, " texts"]
) -> Method:
    """The same scores and threshold, and how well they tell other texts apart."""
    figures = figures_of(method.scores[judged], positive[judged], method.threshold)
    return replace(method, figures=figures)


def figures_of(
    scores: Scores, positive: Bool[Tensor, " texts"], threshold: float, *, seed: int = 0
) -> Figures:
    """How well scores tell texts apart; intervals draw positive and negative texts apart."""
    says, above = (scores > threshold).double(), _above(scores, positive)
    n = int(positive.sum()), int((~positive).sum())
    of_positive, of_negative = (resamples(count, seed=seed + i) for i, count in enumerate(n))
    hits, wrong = says[positive], says[~positive]
    draws = min(len(of_positive), len(of_negative))
    of_positive, of_negative = of_positive[:draws], of_negative[:draws]
    f1s = _f1(n[0] * (of_positive @ hits), n[1] * (of_negative @ wrong), n[0])
    aurocs = torch.einsum("dp,pn,dn->d", of_positive, above, of_negative)
    return Figures(
        f1=float(_f1(hits.sum(), wrong.sum(), n[0])),
        auroc=float(above.mean()),
        tpr=true_positives(scores, positive),
        accuracy=float((says == positive.double()).double().mean()),
        f1_interval=interval(f1s),
        auroc_interval=interval(aurocs),
    )


def _f1(hits: Tensor, wrong: Tensor, positive: int) -> Tensor:
    return 2 * hits / (hits + wrong + positive)


def auroc(scores: Scores, positive: Bool[Tensor, " texts"]) -> float:
    """P(a positive text's score is above a negative one's), ties half."""
    return float(_above(scores, positive).mean())


def _above(scores: Scores, positive: Bool[Tensor, " texts"]) -> Float[Tensor, "positive negative"]:
    difference = scores[positive].double()[:, None] - scores[~positive].double()
    return (difference.sign() + 1) / 2


def true_positives(scores: Scores, positive: Bool[Tensor, " texts"]) -> float:
    """The share of positive texts above the lowest threshold that 1 % of negative texts pass.

    With fewer than a hundred negative texts none of them may pass.
    """
    negative = scores[~positive].sort(descending=True).values
    allowed = int(FALSE_POSITIVES * len(negative))
    threshold = negative[min(allowed, len(negative) - 1)]
    return float((scores[positive] > threshold).double().mean())
