"""How well features tell texts apart, beside what simple methods do.

From texts with and without something, in three parts: what is chosen and fitted comes from the
first, how many features and every threshold from the second, figures are of the third.

    features            a detector, `saes.scope.detector`
    untrained           the same of a suite with random weights
    linear probe        logistic regression on the residual stream's mean, of one layer
    difference of means  along the difference of the two means of it
    words               TF-IDF of the text's words, logistic regression

The layer of the two in the middle is the one whose scores rank the second part best.

How well is in `saes.scope.separation`.

Source: Qwen-Scope, arXiv:2605.11887 (toxicity in many languages: features of one layer by P(on |
positive) - P(on | negative), OR of the first K; how few texts, and other languages, suffice).
Differs: the threshold, and how many features, come from texts that chose nothing else; the methods
above stand beside, and intervals; AUROC and TPR, where Qwen-Scope has F1.

Axes: `texts`; `d` the width of the stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import torch
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from hooked_qwen.sites import Site
from saes.evaluation.probing import logistic, standardised
from saes.scope.activity import Activity
from saes.scope.detector import Across, Detector, best_threshold, chosen_detectors
from saes.scope.separation import Figures, TextScores, auroc, figures_of

SIZES = (1, 2, 5, 10, 20, 50)
"Numbers of features that are tried."
WORD = r"[^\W\u3000-\u9fff]+|[\u3000-\u9fff]"
"Any run of letters or digits, and any character of scripts without spaces."
AcrossChoice = Literal["one", "several", "chosen"]
"Features of one dictionary, of several, or what the held-out part chooses of the two."


@dataclass(frozen=True)
class TextSplit:
    """Which texts are for what."""

    train: Bool[Tensor, " texts"]
    held_out: Bool[Tensor, " texts"]
    "for numbers of features and thresholds"
    test: Bool[Tensor, " texts"]


@dataclass(frozen=True, kw_only=True)
class TextClassifier:
    """One way to tell the texts apart."""

    name: str
    threshold: float
    choice: str
    "what the held-out part chose, in words"
    scores: TextScores = field(repr=False, compare=False)
    "of every text, whatever it is for"


def parts_of(positive: Bool[Tensor, " texts"], *, seed: int = 0) -> TextSplit:
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
    return TextSplit(train, held_out, ~(train | held_out))


def only(
    parts: TextSplit, positive: Bool[Tensor, " texts"], count: int, *, seed: int = 0
) -> TextSplit:
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
    return TextSplit(train, held_out, parts.test)


def by_features(
    activity: Activity,
    positive: Bool[Tensor, " texts"],
    parts: TextSplit,
    *,
    name: str = "features",
    sizes: Sequence[int] = SIZES,
    across: AcrossChoice = "one",
) -> tuple[TextClassifier, Detector | None]:
    """The detector whose number of features ranks the held-out part best; the fewest of equals.

    With `chosen` both ways to choose as many features are held against each other too; of equals
    those of one dictionary are taken.
    """
    ways: tuple[Across, ...] = ("one", "several") if across == "chosen" else (across,)
    train = parts.train.nonzero().flatten()
    own = activity.of_texts(train)
    by_way = [chosen_detectors(own, positive[train], sizes, across=way) for way in ways]
    best: tuple[float, Detector, TextScores] | None = None
    for found in chain.from_iterable(zip(*by_way, strict=True)):
        if found is None:
            continue
        scores = found.scores(activity)
        value = auroc(scores[parts.held_out], positive[parts.held_out])
        if best is None or value > best[0] + 1e-9:
            best = value, found, scores
    if best is None:
        nothing = torch.zeros(len(positive), dtype=torch.float64)
        return _thresholded(name, nothing, positive, parts, "no feature is on more often"), None
    _, found, scores = best
    of = ", ".join(dict.fromkeys(node.site for node in found.nodes))
    method = _thresholded(name, scores, positive, parts, f"{len(found.nodes)} of {of}")
    return method, replace(found, threshold=method.threshold)


def by_stream(
    means: Mapping[Site, Float[Tensor, "texts d"]],
    positive: Bool[Tensor, " texts"],
    parts: TextSplit,
) -> list[TextClassifier]:
    """A linear probe and the difference of means, each at the layer that serves it best."""
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "linear probe": _probe,
        "difference of means": lambda x, y: x[y].mean(0) - x[~y].mean(0),
    }
    found = []
    for name, direction in ways.items():
        best: tuple[float, Site, TextScores] | None = None
        for site, x in means.items():
            x, y = standardised(x.double(), parts.train), positive[parts.train]
            scores = x @ direction(x[parts.train], y)
            value = auroc(scores[parts.held_out], positive[parts.held_out])
            if best is None or value > best[0] + 1e-9:
                best = value, site, scores
        assert best is not None, "there is a layer"
        found.append(_thresholded(name, best[2], positive, parts, str(best[1])))
    return found


def _probe(x: Float[Tensor, "train d"], positive: Bool[Tensor, " train"]) -> Float[Tensor, " d"]:
    return logistic(x, positive)[0]


def by_words(
    texts: Sequence[str], positive: Bool[Tensor, " texts"], parts: TextSplit
) -> TextClassifier:
    """The words of the texts; those that the training part has."""
    train = parts.train.nonzero().flatten().tolist()
    words = TfidfVectorizer(token_pattern=WORD)
    seen = words.fit_transform([texts[i] for i in train])
    # So few numbers on several threads are mostly waiting.
    with threadpool_limits(1):
        regression = LogisticRegression(max_iter=1000).fit(seen, positive[train].numpy())
    scores = torch.from_numpy(regression.decision_function(words.transform(texts)))
    choice = f"{len(words.vocabulary_):,} words"
    return _thresholded("words", scores.double(), positive, parts, choice)


def _thresholded(
    name: str, scores: TextScores, positive: Bool[Tensor, " texts"], parts: TextSplit, choice: str
) -> TextClassifier:
    threshold = best_threshold(scores[parts.held_out], positive[parts.held_out])
    return TextClassifier(name=name, threshold=threshold, choice=choice, scores=scores)


def judged_on(
    draws: Sequence[TextClassifier],
    positive: Bool[Tensor, " texts"],
    judged: Bool[Tensor, " texts"],
) -> Figures:
    """How well a method tells some texts apart, learned once or from several draws of texts."""
    scores = [method.scores[judged] for method in draws]
    return figures_of(scores, positive[judged], [method.threshold for method in draws])
