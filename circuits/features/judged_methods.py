"""Every way to tell labelled texts apart, judged on some texts or several sets of them.

Texts are read once: each method, learned from all texts and from few, by the number of features
that is held best and by each of several, says something of all texts, and is judged on those that
it did not learn from.

    {"methods": [{"name": "features", "f1": .98, "auroc": .99, ...}, ...],
     "by_texts": {"1": [{"name": "features", ...}, ...], "5": ...},  learned from few of each kind,
                                                                    the mean over `draws` of them
     "by_features": {"1": [{"name": "features", ...}, {"name": "untrained ...}], "2": ...}}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded, rounded_all
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from saes.evaluation.baselines import untrained
from saes.scope.activity import Activity, read_through
from saes.scope.classify import (
    SIZES,
    AcrossChoice,
    TextClassifier,
    TextSplit,
    by_features,
    by_stream,
    by_words,
    judged_on,
    only,
)
from saes.scope.separation import Figures
from saes.suite import Suite

FEW = (1, 2, 5, 10, 20, 50, 100)
"Texts of each kind that are learned from, where there are more."
DRAWS = 5
"How often so few are drawn."
PERCENT = (1, 5, 10, 50, 100)
"Shares of the texts that are learned from."
METHODS = (
    "features",
    "untrained dictionaries",
    "linear probe",
    "difference of means",
    "words",
)


@dataclass(frozen=True, kw_only=True)
class ReadTexts:
    """Texts as the model and two suites read them."""

    texts: Sequence[str]
    activity: Activity
    control: Activity
    "of dictionaries with random weights"
    means: Mapping[Site, Float[Tensor, "texts d"]]
    "of the residual stream after every layer"


def read_texts(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    *,
    seed: int = 0,
    report: Report = silent,
) -> ReadTexts:
    """One pass over the texts."""
    sites = [Site("resid_post", layer) for layer in range(len(model.blocks))]
    control = untrained(suite, seed=seed)
    found = read_through(model, suite, texts, sites=sites, beside=[control], report=report)
    return ReadTexts(
        texts=texts, activity=found.activity, control=found.beside[0], means=found.means
    )


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The methods, and the same learned from fewer texts and held to a number of features."""

    methods: Sequence[TextClassifier]
    by_texts: Mapping[int, Sequence[Sequence[TextClassifier]]]
    "of each method one for each draw of the texts"
    by_features: Mapping[int, Sequence[TextClassifier]]
    "of trained and untrained dictionaries only"

    def judged_on(
        self, positive: Bool[Tensor, " texts"], judged: Bool[Tensor, " texts"]
    ) -> dict[str, Any]:
        """The figures of all of them on some texts, as a record."""

        def records(methods: Iterable[Sequence[TextClassifier]]) -> list[dict[str, Any]]:
            return [_record(draws, judged_on(draws, positive, judged)) for draws in methods]

        def learned_once(methods: Iterable[TextClassifier]) -> list[dict[str, Any]]:
            return records([method] for method in methods)

        return {
            "methods": learned_once(self.methods),
            "by_texts": {str(n): records(some) for n, some in self.by_texts.items()},
            "by_features": {str(k): learned_once(some) for k, some in self.by_features.items()},
        }


def tables(
    read: ReadTexts,
    positive: Bool[Tensor, " texts"],
    parts: TextSplit,
    *,
    across: AcrossChoice = "one",
    seed: int = 0,
    draws: int = DRAWS,
) -> Tables:
    """Every method, fitted on the first part and set by the second.

    Where fewer texts are learned from, which ones is drawn `draws` times.
    """

    def by_both(some: TextSplit, sizes: Sequence[int] = SIZES) -> list[TextClassifier]:
        either = zip(METHODS, (read.activity, read.control), strict=False)
        return [
            by_features(activity, positive, some, name=name, sizes=sizes, across=across)[0]
            for name, activity in either
        ]

    def every_method(some: TextSplit) -> list[TextClassifier]:
        others = [*by_stream(read.means, positive, some), by_words(read.texts, positive, some)]
        return [*by_both(some), *others]

    def of_few(n: int) -> list[tuple[TextClassifier, ...]]:
        some = (only(parts, positive, n, seed=seed + draw) for draw in range(draws))
        return list(zip(*map(every_method, some), strict=True))

    most = learned(positive, parts)
    counts = sorted({n for n in (*FEW, *shares(most).values()) if n < most})
    return Tables(
        methods=every_method(parts),
        by_texts={n: of_few(n) for n in counts},
        by_features={k: by_both(parts, (k,)) for k in SIZES},
    )


def learned(positive: Bool[Tensor, " texts"], parts: TextSplit) -> int:
    """How many texts of each kind are learned from at most."""
    given = parts.train | parts.held_out
    return min(int((given & kind).sum()) for kind in (positive, ~positive))


def shares(most: int) -> dict[str, int]:
    """Percent of the texts that are learned from, in texts of each kind."""
    return {str(percent): max(1, round(percent / 100 * most)) for percent in PERCENT}


def _record(draws: Sequence[TextClassifier], figures: Figures) -> dict[str, Any]:
    """What is the same of all draws as it is, and of several a list of what each of them chose."""
    choices = [{"choice": m.choice, "threshold": rounded(m.threshold)} for m in draws]
    return {
        "name": draws[0].name,
        **(choices[0] if len(draws) == 1 else {"draws": choices}),
        **rounded_all(asdict(figures)),
    }
