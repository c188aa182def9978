"""SHIFT, whole: probe, circuit, judgement, cut, and every baseline beside it, over several seeds.

1. A linear probe of texts' means is trained where the intended and the spurious signal agree.
2. The circuit of its logit says which features it goes by (zero reference, positions summed).
3. Features that belong to the spurious signal are judged so, by a rule, a file or a person.
4. They are set to zero in the model; the head stays, or is trained again on the same texts.
5. All is tested where the signals are independent.

Source: Marks et al. 2024, arXiv:2403.19647, section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded
from circuits.shift.case import Case, CaseConfig
from circuits.shift.judging import Judged, by_file, by_rule, circuit_features, cut_nodes
from circuits.shift.labelled import ShiftData
from circuits.shift.methods import METHODS, Judgement
from circuits.shift.scores import NUMBERS, Said, Score, scores
from hooked_qwen.identity import identity
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from saes.suite import Suite

SCHEMA = "shift/1"
Ask = Callable[[Case, Sequence[Judged]], Sequence[Judged]]
"Judges the features of a case's circuit."


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(CaseConfig):
    """How a classifier is shifted."""

    seeds: int = 5
    "each draws its own texts, probe, circuit and controls"
    seed: int = 0
    "the first of them"

    def __post_init__(self) -> None:
        for name in ("seeds", "nodes", "steps", "circuit_texts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True, eq=False)
class Shifted:
    """What was found."""

    config: ShiftConfig
    cases: Sequence[Judgement]
    "one for each seed"
    said: Mapping[str, Sequence[Sequence[Said]]]
    "by method: for each seed, what each draw says of the test texts"
    notes: Sequence[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Label accuracy, spurious accuracy and worst group of every method, with intervals."""
        rows = {}
        for name, runs in self.said.items():
            found = scores(runs)
            own: list[Score] = [getattr(found, number) for number in NUMBERS]
            rows[name] = [x for score in own for x in (score.value, *(score.interval or ("", "")))]
        columns = [f"{n}{end}" for n in NUMBERS for end in ("", ", low", ", high")]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def _repr_html_(self) -> str:
        return self.table().round(2).to_html()

    def record(self) -> dict[str, Any]:
        """The record of `shift.json`."""
        first = self.cases[0].case
        data = first.data
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
            "sites": [str(j.case.site) for j in self.cases],
            "losses": [
                {str(site): rounded(loss) for site, loss in j.case.losses.items()}
                for j in self.cases
            ],
            "features": [[f.record() for f in j.features] for j in self.cases],
            "methods": {name: _numbers(runs) for name, runs in self.said.items()},
            "notes": [*data.notes, *self.notes],
        }


def _numbers(runs: Sequence[Sequence[Said]]) -> dict[str, Any]:
    found = scores(runs)

    def told(score: Score) -> dict[str, Any]:
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
    report: Report = silent,
) -> Shifted:
    """Shift a classifier, with every baseline; `data` gives the texts of a seed.

    Features are judged by the `judgements` of a file, by `ask`, or else by the automatic rule.
    What a file or a person judges is the circuit of the first seed, and holds for all.

    Raises `ValueError` where nothing is judged to be cut.
    """
    cases: list[Judgement] = []
    said: dict[str, list[Sequence[Said]]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        case = Case.of(model, suite, data(seed), config=config, seed=seed, report=report)
        if cases and (judgements is not None or ask is not None):
            # Judged once: a circuit is judged by what its features are, not by the draw of texts.
            judged = Judgement(case, cases[0].features, cases[0].ranking)
        else:
            judged = _judged(case, judgements, ask)
        cases.append(judged)
        for n, method in enumerate(METHODS):
            report(f"seed {len(cases)} of {config.seeds}: methods", n, len(METHODS))
            for name, draws in method(judged).items():
                said.setdefault(name, []).append(draws)
        report(f"seed {len(cases)} of {config.seeds}: methods", len(METHODS), len(METHODS))
    notes = [
        f"{name} was possible for {len(runs)} of {config.seeds} seeds"
        for name, runs in said.items()
        if len(runs) < config.seeds
    ]
    return Shifted(config, cases, said, notes)


def _judged(
    case: Case, judgements: Mapping[Node, Mapping[str, Any]] | None, ask: Ask | None
) -> Judgement:
    label, spurious = case.effects()
    features = circuit_features(label, spurious, case.config.nodes)
    if judgements is not None:
        features = by_file(features, judgements)
    elif ask is not None:
        features = list(ask(case, features))
    else:
        features = by_rule(features, label, spurious)
    if not cut_nodes(features):
        raise ValueError(
            f"none of the {len(features)} features with the largest effect is judged to be cut: "
            "there is nothing to shift"
        )
    return Judgement(case, features, label)
