"""What is told of texts that were written for missing features, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.known_texts import KnownTexts, LabelledReadings
from circuits.features.named import key_of
from circuits.features.writers import WritingConfig
from circuits.features.written import SyntheticText, Wanted
from circuits.graph import rounded_all
from hooked_qwen.config_checks import check_at_least
from saes.scope.synthesis import (
    covered_share,
    nearest_shared,
    on_in,
    right_by_stream,
    right_by_words,
    score_of,
)

SCHEMA = "synthesis/1"
ALONE = "training alone"
ASKED, UNTRAINED = "features asked for", "untrained features"
RANDOM_TARGET, RANDOM_TRAINING, REAL = "random target", "random training", "real target"
WHOLE = "whole target"
ROWS = (ASKED, UNTRAINED, RANDOM_TARGET, RANDOM_TRAINING, REAL, WHOLE)


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """What is asked for, and how often."""

    features: int = 20
    "asked for at most, those on in most target texts"
    least: int = 2
    "target texts in which a missing feature is on"
    tries: int = 4
    "texts asked for of each feature"
    shown: int = 3
    "examples in a prompt"
    seeds: int = 3
    "times that everything is written anew"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "features", "least", "tries", "shown", "seeds")


@dataclass(frozen=True)
class SeedAddition:
    """What one seed adds to the training texts, and all that was written for it."""

    added: LabelledReadings
    written: list[SyntheticText]


def record_of(
    known: KnownTexts,
    wanted: Sequence[Wanted],
    found: Sequence[Mapping[str, SeedAddition]],
    config: SynthesisConfig,
    writing: WritingConfig,
) -> dict[str, Any]:
    asked = torch.tensor([one.feature for one in wanted])
    texts = [text for rows in found for text in rows[ASKED].written]
    n, m = len(known.training.texts), len(known.target.texts)
    of_target = on_in(known.target.incidence)
    missing = of_target & ~on_in(known.training.incidence)
    return {
        "schema": SCHEMA,
        "texts": {"training": n, "target": m, "test": len(known.test.texts)},
        "labels": sorted({text.label for text in known.training.texts}),
        "config": asdict(config),
        "writing": asdict(writing),
        "site": str(known.site),
        "target_features": int(of_target.sum()),
        "missing": int(missing.sum()),
        "asked": [_about(one, texts) for one in wanted],
        "rows": rounded_all(_rows(known, asked, found, config.seed)),
    }


def _about(one: Wanted, texts: Sequence[SyntheticText]) -> dict[str, Any]:
    """A feature that was asked for, and how often it came."""
    own = [text for text in texts if text.wanted == one]
    return {
        "feature": key_of(one.node),
        "label": one.called,
        "target_texts": one.target_texts,
        "asked_as": one.label,
        "written": len(own),
        "fired": sum(text.kept for text in own),
    }


def _rows(
    known: KnownTexts,
    asked: Int[Tensor, " asked"],
    found: Sequence[Mapping[str, SeedAddition]],
    seed: int,
) -> dict[str, Any]:
    rights = {ALONE: [_right(known, known.training.part(0, 0))]} if known.test.texts else {}
    if known.test.texts:
        rights |= {row: [_right(known, rows[row].added) for rows in found] for row in ROWS}
    nothing = [SeedAddition(known.training.part(0, 0), [])]
    every = {ALONE: nothing} | {row: [rows[row] for rows in found] for row in ROWS}
    return {
        row: _means(known, asked, several)
        | {"scores": _scores(rights[row], rights[ALONE][0], seed) if rights else None}
        for row, several in every.items()
    }


def _means(
    known: KnownTexts, asked: Int[Tensor, " asked"], several: Sequence[SeedAddition]
) -> dict[str, Any]:
    """What is told of a row, as means over seeds."""
    of_target = on_in(known.target.incidence)
    wanted = torch.zeros_like(of_target).index_fill_(0, asked, True)
    own = known.training.incidence
    near = [known.nearness(row.added) for row in several]
    shown = [
        nearest_shared([known.tokens(text.text)], [known.tokens(t) for t in text.shown])[0]
        for row in several
        for text in row.written
        if text.kept
    ]
    return {
        "texts": _mean([float(len(row.added.texts)) for row in several]),
        "covered": _mean([covered_share(of_target, own, r.added.incidence) for r in several]),
        "asked_covered": _mean([covered_share(wanted, r.added.incidence) for r in several]),
        "fired": _fired([text for row in several for text in row.written], asked.tolist()),
        "shared": _mean([value for values, _ in near for value in values]),
        "cosine": _mean([value for _, values in near for value in values]),
        "shown": _mean(shown),
    }


def _fired(texts: Sequence[SyntheticText], asked: Sequence[int]) -> float | None:
    """How often the feature asked for is on; where none was, how often one of those is."""
    with_own = [text.wanted.feature in text.fired for text in texts if text.wanted]
    without = [len(text.fired) / len(asked) for text in texts if not text.wanted]
    return _mean([*map(float, with_own), *without])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _right(known: KnownTexts, added: LabelledReadings) -> dict[str, Float[Tensor, " test"]]:
    """Which test texts are told right with what is added."""
    own, test = known.training, known.test
    texts, labels = [*own.texts, *added.texts], [t.label for t in test.texts]
    of = [text.label for text in texts]
    return {
        "stream": right_by_stream(torch.cat([own.means, added.means]), of, test.means, labels),
        "words": right_by_words([t.text for t in texts], of, [t.text for t in test.texts], labels),
    }


def _scores(
    rights: Sequence[Mapping[str, Tensor]], alone: Mapping[str, Tensor], seed: int
) -> dict[str, Any]:
    return {
        way: asdict(score_of(torch.stack([one[way] for one in rights]), alone[way], seed=seed))
        for way in alone
    }
