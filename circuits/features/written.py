"""Texts asked for by examples: which features are wanted, what was written, what is kept."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circuits.features.named import Named
from circuits.features.writers import Writer, WritingConfig, asking, cleaned
from hooked_qwen.nodes import Node
from saes.evaluation.probing import Labelled
from saes.scope.activity import Activity
from saes.scope.coverage import Incidence
from saes.scope.synthesis import missing_features

STRONGEST = 8
"Target texts at most of which those that show a feature are drawn."
SPARE = 1.5
"Of random texts so many times what is needed are asked for: some are empty or known."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A missing feature with the target texts that show it."""

    feature: int
    "its number in the activity"
    node: Node
    called: str
    hint: str
    "for an instruction: what people call it; what a middle layer's feature promotes says little"
    label: str
    "of most target texts in which it is on"
    target_texts: int
    shown: tuple[str, ...]
    "those of this label in which it is strongest"


@dataclass(frozen=True, kw_only=True)
class SyntheticText:
    """One text, and what it was asked with."""

    row: str
    text: str
    label: str
    wanted: Wanted | None
    "None where no feature was asked for"
    shown: tuple[str, ...]
    seed: int
    fired: tuple[int, ...] = ()
    "which of all features asked for are on in it"
    kept: bool = False
    shared: float | None = None
    "runs of tokens that the nearest training text has too; of what is kept"
    cosine: float | None = None


def wanted_features(
    activity: Activity,
    training: int,
    target: Sequence[Labelled],
    named: Named,
    *,
    least: int,
    most: int,
) -> list[Wanted]:
    """Features that are missing, those of most target texts first, at most so many.

    The activity is of so many training texts, then of the target's.
    """
    stop = training + len(target)
    incidence = Incidence.of_activity(activity)
    missing = missing_features(
        incidence.part(0, training), incidence.part(training, stop), least=least
    )
    nodes = {int(feature): activity.node(int(feature)) for feature in missing[:most]}
    called = named.of(nodes.values())
    in_target = (activity.text >= training) & (activity.text < stop)
    found = []
    for feature, node in nodes.items():
        of = (activity.feature == feature) & in_target
        by_size = activity.largest[of].abs().argsort(descending=True, stable=True)
        texts = [target[i] for i in (activity.text[of][by_size] - training).tolist()]
        labels = Counter(text.label for text in texts)
        label = min(labels, key=lambda one: (-labels[one], one))
        found.append(
            Wanted(
                feature=feature,
                node=node,
                called=called[node],
                hint=named.given(node),
                label=label,
                target_texts=len(texts),
                shown=tuple(text.text for text in texts if text.label == label)[:STRONGEST],
            )
        )
    return found


def for_features(
    row: str, wanted: Iterable[Wanted], *, tries: int, shown: int, seed: int, rng: random.Random
) -> list[SyntheticText]:
    """Requests of each feature, every one with other examples."""
    return [
        SyntheticText(
            row=row,
            text="",
            label=one.label,
            wanted=one,
            shown=tuple(rng.sample(one.shown, min(shown, len(one.shown)))),
            seed=seed,
        )
        for one in wanted
        for _ in range(tries)
    ]


def at_random(
    row: str,
    texts: Sequence[Labelled],
    budget: Counter[str],
    *,
    shown: int,
    seed: int,
    rng: random.Random,
) -> list[SyntheticText]:
    """Requests with any examples of each label, some more than the budget."""
    found = []
    for label, count in sorted(budget.items()):
        own = [text.text for text in texts if text.label == label]
        for _ in range(round(SPARE * count + 1) if own else 0):
            examples = tuple(rng.sample(own, min(shown, len(own))))
            found.append(
                SyntheticText(row=row, text="", label=label, wanted=None, shown=examples, seed=seed)
            )
    return found


def written(
    requests: Sequence[SyntheticText],
    writer: Writer,
    writing: WritingConfig,
    known: Iterable[str],
    seed: int,
) -> list[SyntheticText]:
    """What was written to each request, but nothing empty, known or written before."""
    if not requests:
        return []
    prompts = [
        asking(one.shown, writing, common=one.wanted.hint if one.wanted else "") for one in requests
    ]
    before = {_plain(text) for text in known}
    found = []
    for request, texts in zip(requests, writer(prompts, seed), strict=True):
        for text in (cleaned(raw, writing) for raw in texts):
            if text and _plain(text) not in before:
                before.add(_plain(text))
                found.append(replace(request, text=text))
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def with_fired(
    texts: Sequence[SyntheticText], on: Incidence, wanted: Sequence[Wanted]
) -> list[SyntheticText]:
    """Which wanted features are on in each text; kept are those of which the own one is.

    Where none was asked for everything is kept.
    """
    numbers = {one.feature for one in wanted}
    fired: list[list[int]] = [[] for _ in texts]
    for sample, unit in zip(on.sample.tolist(), on.unit.tolist(), strict=True):
        if unit in numbers:
            fired[sample].append(unit)
    return [
        replace(
            one,
            fired=tuple(features),
            kept=one.wanted is None or one.wanted.feature in features,
        )
        for one, features in zip(texts, fired, strict=True)
    ]


def within(texts: Sequence[SyntheticText], budget: Counter[str]) -> list[SyntheticText]:
    """The same, of each label no more kept than the budget has."""
    left, found = Counter(budget), []
    for one in texts:
        keep = one.kept and left[one.label] > 0
        left[one.label] -= keep
        found.append(replace(one, kept=keep))
    return found


def drawn(texts: Sequence[Labelled], budget: Counter[str], rng: random.Random) -> list[Labelled]:
    """Real texts of each label, as many as the budget or as there are."""
    found = []
    for label, count in sorted(budget.items()):
        own = [text for text in texts if text.label == label]
        found += rng.sample(own, min(count, len(own)))
    return found
