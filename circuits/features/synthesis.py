"""Texts written for features that a training set lacks, as one strict JSON record with controls.

    {"schema": "synthesis/1", "texts": {"training": .., "target": .., "test": ..},
     "target_features": .., "missing": .., "asked": [{"feature": "resid_post.3/86", ...}, ...],
     "rows": {ROW: {"texts", "covered", "asked_covered", "fired", "shared", "cosine", "shown",
                    "scores": {"stream": SCORE, "words": SCORE} or null}, ...}}

Rows are what is added to the training texts, mean over seeds: as many texts of each label as were
kept for the features asked for, but for the last. `circuits.scope` adds what the record was made
from.

    training alone          nothing
    features asked for      prompts show target texts in which a missing feature is on; kept where
                            it is on in what was written
    untrained features      the same by dictionaries with random weights
    random target           prompts show any target texts; everything is kept
    random training         prompts show any training texts
    real target             target texts themselves
    whole target            all of them: what there is to gain

`covered` is the share of the target's features that are on in some text of the row or of the
training set, `asked_covered` that of the features asked for; `fired` the share of written texts in
which the feature asked for is on, and where none was asked for the mean over those that were.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.features.known_texts import KnownTexts, LabelledReadings
from circuits.features.named import Named
from circuits.features.synthesis_record import (
    ASKED,
    RANDOM_TARGET,
    RANDOM_TRAINING,
    REAL,
    UNTRAINED,
    WHOLE,
    SeedAddition,
    SynthesisConfig,
    record_of,
)
from circuits.features.writers import Writer, WritingConfig
from circuits.features.written import (
    SyntheticText,
    Wanted,
    at_random,
    drawn,
    for_features,
    wanted_features,
    with_fired,
    within,
    written,
)
from hooked_qwen.progress import Report, silent
from saes.evaluation.probing import Labelled
from saes.suite import Suite


@dataclass(frozen=True)
class Synthesis:
    """The record, and every text that was written."""

    record: dict[str, Any]
    written: list[SyntheticText]


def synthesised(
    model: TransformerBridge,
    suite: Suite,
    training: Sequence[Labelled],
    target: Sequence[Labelled],
    writer: Writer,
    names: Mapping[str, str],
    *,
    test: Sequence[Labelled] = (),
    config: SynthesisConfig | None = None,
    writing: WritingConfig | None = None,
    report: Report = silent,
) -> Synthesis:
    """Texts for the features that `target` turns on and `training` never does, judged.

    `names` are people's names of features, by SITE/INDEX. With `test` texts classifiers of the
    labels are fitted with and without the added texts.

    Raises `ValueError` where no feature is missing, and for a test of one label.
    """
    config, writing = config or SynthesisConfig(), writing or WritingConfig()
    _check(training, target, test)
    known = KnownTexts(model, suite, training, target, test, config.seed, report)
    wanted = {
        row: wanted_features(
            activity, len(training), target, named, least=config.least, most=config.features
        )
        for row, activity, named in (
            (ASKED, known.activity, Named(model, suite, names)),
            (UNTRAINED, known.control_activity, Named(model, known.control, {})),
        )
    }
    if not wanted[ASKED]:
        raise ValueError(
            f"no feature is on in {config.least} of the {len(target)} target texts and in none of "
            f"the {len(training)} training texts: there is nothing to ask for"
        )
    found: list[dict[str, SeedAddition]] = []
    for number in range(config.seeds):
        seed = config.seed + number
        found.append(_one_seed(known, wanted, writer, config, writing, seed))
        report("seeds", number + 1, config.seeds)
    texts = [text for rows in found for row in rows.values() for text in row.written]
    return Synthesis(record_of(known, wanted[ASKED], found, config, writing), texts)


def _check(
    training: Sequence[Labelled], target: Sequence[Labelled], test: Sequence[Labelled]
) -> None:
    if not training or not target:
        raise ValueError(
            f"there are {len(training)} training and {len(target)} target texts: expected some of "
            "both"
        )
    if test and len({text.label for text in training}) < 2:
        raise ValueError(
            "the training texts have one label: there is nothing for a test to tell apart"
        )


def _one_seed(
    known: KnownTexts,
    wanted: Mapping[str, Sequence[Wanted]],
    writer: Writer,
    config: SynthesisConfig,
    writing: WritingConfig,
    seed: int,
) -> dict[str, SeedAddition]:
    """Everything that is written under one seed, of which as many are kept of each label."""
    rng = random.Random(seed)

    def asked(row: str) -> list[SyntheticText]:
        tries, shown = config.tries, config.shown
        requests = for_features(row, wanted[row], tries=tries, shown=shown, seed=seed, rng=rng)
        texts = written(requests, writer, writing, known.contents, rng.randrange(2**31))
        suite = known.suite if row == ASKED else known.control
        return with_fired(texts, known.on(suite, texts), wanted[row])

    def unasked(row: str, shown: LabelledReadings) -> list[SyntheticText]:
        requests = at_random(row, shown.texts, budget, shown=config.shown, seed=seed, rng=rng)
        texts = written(requests, writer, writing, known.contents, rng.randrange(2**31))
        return with_fired(texts, known.on(known.suite, texts), wanted[ASKED])

    own = asked(ASKED)
    budget = Counter(text.label for text in own if text.kept)
    others = {
        UNTRAINED: asked(UNTRAINED),
        RANDOM_TARGET: unasked(RANDOM_TARGET, known.target),
        RANDOM_TRAINING: unasked(RANDOM_TRAINING, known.training),
    }
    rows = {ASKED: own, **{row: within(texts, budget) for row, texts in others.items()}}
    found = {row: _added(known, texts) for row, texts in rows.items()}
    real = known.read(drawn(known.target.texts, budget, rng))
    return found | {REAL: SeedAddition(real, []), WHOLE: SeedAddition(known.target, [])}


def _added(known: KnownTexts, texts: Sequence[SyntheticText]) -> SeedAddition:
    """What is kept, read, and how near it is to the training texts."""
    kept = [Labelled(text.text, text.label) for text in texts if text.kept]
    read = known.read(kept)
    near = iter(zip(*known.nearness(read), strict=True))
    found = []
    for text in texts:
        shared, cosine = next(near) if text.kept else (None, None)
        found.append(replace(text, shared=shared, cosine=cosine))
    return SeedAddition(read, found)
