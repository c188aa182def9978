"""SHIFT, whole: probe, circuit, judgement, cut, and every baseline beside it, over several seeds.

1. A linear probe of texts' means is trained where the intended and the spurious signal agree.
2. The circuit of its logit says which features it goes by (zero reference, positions summed).
3. Features that belong to the spurious signal are judged so, by a rule, a file or a person.
4. They are set to zero in the model; the head stays, or is trained again on the same texts.
5. All is tested where the signals are independent.

Source: Marks et al. 2024, arXiv:2403.19647, section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from circuits.discovery.resume import NOTHING_KEPT, DiscoveryParts
from circuits.graph import rounded
from circuits.shift.case import CaseConfig, ShiftCase
from circuits.shift.finished import FinishedSeed, FinishedSeeds
from circuits.shift.judging import Judged, by_file, by_rule, circuit_features, cut_nodes
from circuits.shift.labelled import ShiftData
from circuits.shift.methods import METHODS, Judgement, ShiftMethod
from circuits.shift.scores import NUMBERS, MeanWithInterval, ProbePredictions, scores
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.identity import identity
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from saes.suite import Suite

SCHEMA = "shift/1"
Ask = Callable[[ShiftCase, Sequence[Judged]], Sequence[Judged]]
"Judges the features of a case's circuit."


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(CaseConfig):
    """How a classifier is shifted."""

    seeds: int = 5
    "each draws its own texts, probe, circuit and controls"
    seed: int = 0
    "the first of them"

    def __post_init__(self) -> None:
        check_at_least(1, self, "seeds", "nodes", "steps", "circuit_texts", "batch_size")


@dataclass(frozen=True, eq=False)
class Shifted:
    """What was found."""

    config: ShiftConfig
    first: ShiftCase
    "the first seed's, whose circuit is shown"
    seeds: Sequence[FinishedSeed]

    @property
    def said(self) -> Mapping[str, Sequence[Sequence[ProbePredictions]]]:
        """By method: for each seed that it was possible for, what each draw says of the test."""
        found: dict[str, list[Sequence[ProbePredictions]]] = {}
        for seed in self.seeds:
            for name, draws in seed.said.items():
                found.setdefault(name, []).append(draws)
        return found

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the table should hear."""
        return [
            f"{name} was possible for {len(runs)} of {len(self.seeds)} seeds"
            for name, runs in self.said.items()
            if len(runs) < len(self.seeds)
        ]

    def table(self) -> pd.DataFrame:
        """Label accuracy, spurious accuracy and worst group of every method, with intervals."""
        rows = {}
        for name, runs in self.said.items():
            found = scores(runs)
            own: list[MeanWithInterval] = [getattr(found, number) for number in NUMBERS]
            rows[name] = [x for score in own for x in (score.value, *(score.interval or ("", "")))]
        columns = [f"{n}{end}" for n in NUMBERS for end in ("", ", low", ", high")]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def _repr_html_(self) -> str:
        return self.table().round(2).to_html()

    def record(self) -> dict[str, Any]:
        """The record of `shift.json`."""
        first, data = self.first, self.first.data
        return {
            "schema": SCHEMA,
            "data": data.name,
            "label": [data.label, *data.labels],
            "spurious": [data.spurious, *data.spurious_labels],
            "texts": {name: len(texts) for name, texts in first.texts.items()},
            "model": first.model.cfg.model_name,
            "model_hash": identity(first.model),
            "dictionaries": first.suite.summary(),
            "config": asdict(self.config),
            "sites": [str(seed.site) for seed in self.seeds],
            "losses": [
                {str(site): rounded(loss) for site, loss in seed.losses.items()}
                for seed in self.seeds
            ],
            "features": [[f.record() for f in seed.features] for seed in self.seeds],
            "methods": {name: _numbers(runs) for name, runs in self.said.items()},
            "notes": [*data.notes, *self.notes],
        }


def _numbers(runs: Sequence[Sequence[ProbePredictions]]) -> dict[str, Any]:
    found = scores(runs)

    def told(score: MeanWithInterval) -> dict[str, Any]:
        ends = None if score.interval is None else [rounded(end) for end in score.interval]
        return {"value": rounded(score.value), "interval": ends}

    numbers = {name: told(getattr(found, name)) for name in NUMBERS}
    return numbers | {
        "groups": [told(group) for group in found.groups],
        "seeds": len(runs),
        "draws": len(runs[0]),
    }


def shift(
    model: TransformerBridge,
    suite: Suite,
    data: Callable[[int], ShiftData],
    *,
    config: ShiftConfig,
    judgements: Mapping[Node, Mapping[str, Any]] | None = None,
    ask: Ask | None = None,
    methods: Sequence[ShiftMethod] = METHODS,
    kept: Path | None = None,
    report: Report = silent,
) -> Shifted:
    """Shift a classifier, with every baseline; `data` gives the texts of a seed.

    `methods` are what the shift is held against, itself among them.

    Features are judged by the `judgements` of a file, by `ask`, or else by the automatic rule.
    What a file or a person judges is the circuit of the first seed, and holds for all. The folder
    `kept` keeps each seed that is done, and what is done of the first one's circuit: what is in it
    is not done again. It is for one model, one suite, one configuration, one way to judge and the
    same methods.

    Raises `ValueError` where nothing is judged to be cut.
    """
    done = FinishedSeeds(kept)
    work = _Work(model, suite, data, config, judgements, ask, methods, done, report)
    opening = work.first(DiscoveryParts(kept))
    found = [work.finished(opening)]
    # A copy without the states of its prompts, whose room the other seeds need.
    opening = replace(opening, case=replace(opening.case))
    for seed in range(config.seed + 1, config.seed + config.seeds):
        found.append(work.other(seed, opening))
    return Shifted(config, opening.case, found)


@dataclass(frozen=True)
class _Work:
    """What the seeds share."""

    model: TransformerBridge
    suite: Suite
    data: Callable[[int], ShiftData]
    config: ShiftConfig
    judgements: Mapping[Node, Mapping[str, Any]] | None
    ask: Ask | None
    methods: Sequence[ShiftMethod]
    done: FinishedSeeds
    report: Report

    def first(self, parts: DiscoveryParts) -> Judgement:
        """The first seed's circuit, judged; `parts` keeps its effects."""
        seed = self.config.seed
        case, known = self.case(seed), self.done.get(seed)
        if known is None:
            judged = self._judged(case, parts)
        else:
            judged = Judgement(case, known.features, case.label_effects(parts=parts))
        if self.ask is not None and any(f.cut is None for f in judged.features):
            judged = replace(judged, features=list(self.ask(case, judged.features)))
        return _with_a_cut(judged)

    def other(self, seed: int, first: Judgement) -> FinishedSeed:
        """The results of another seed than the first."""
        judged_once = self.judgements is not None or self.ask is not None
        known = self.done.get(seed)
        if known is not None and (not judged_once or known.features == first.features):
            return known
        case = self.case(seed)
        # A person judges a circuit by what its features are, not by the draw of texts.
        return self.finished(
            replace(first, case=case) if judged_once else _with_a_cut(self._judged(case))
        )

    def finished(self, judged: Judgement) -> FinishedSeed:
        """The results of a seed: those that are kept of the same features, or every method's."""
        case = judged.case
        known = self.done.get(case.seed)
        if known is not None and known.features == judged.features:
            return known
        doing = f"seed {1 + case.seed - self.config.seed} of {self.config.seeds}: methods"
        said: dict[str, Sequence[ProbePredictions]] = {}
        for n, method in enumerate(self.methods):
            self.report(doing, n, len(self.methods))
            said |= method(judged)
        self.report(doing, len(self.methods), len(self.methods))
        found = FinishedSeed(
            site=case.site, losses=case.losses, features=judged.features, said=said
        )
        return self.done.keep(case.seed, found)

    def case(self, seed: int) -> ShiftCase:
        """A seed's texts, read by the plain model."""
        return ShiftCase.of(
            self.model,
            self.suite,
            self.data(seed),
            config=self.config,
            seed=seed,
            report=self.report,
        )

    def _judged(self, case: ShiftCase, parts: DiscoveryParts = NOTHING_KEPT) -> Judgement:
        """By the file, or by the rule; not at all where a person is asked."""
        label, spurious = case.label_effects(parts=parts), case.spurious_effects()
        features = circuit_features(label, spurious, case.config.nodes)
        if self.judgements is not None:
            features = by_file(features, self.judgements)
        elif self.ask is None:
            features = by_rule(features, label, spurious)
        return Judgement(case, features, label)


def _with_a_cut(judged: Judgement) -> Judgement:
    if cut_nodes(judged.features):
        return judged
    raise ValueError(
        f"none of the {len(judged.features)} features with the largest effect is judged to be cut: "
        "there is nothing to shift"
    )
