"""Coverage and redundancy of sets of texts as one strict JSON record, every number with controls.

    {"schema": "coverage/1", "sets": ["ioi", ...], "keep": .95, "at": 40, "longest": 256,
     "units": {"features": UNIT, "untrained": UNIT, "tokens": UNIT},
     "common": {"texts": .., "share": ..} or null, "results": {...} or null}

    UNIT = {"of": .., "removed": .., "on": .., "sets": {"ioi": {...}, ...},
            "overlap": [[...]], "dealt_anew": {"mean", "low", "high"}, "halves": [...],
            "random": [...], "tree": {...}, "agreement": {...} or null}

The three units are features, features of dictionaries with random weights, and the distinct tokens
of the texts, which cost nothing. `circuits.scope` adds what the record was made from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded, rounded_all
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.baselines import untrained
from saes.scope.activity import LONGEST, Activity, read_through
from saes.scope.coverage import Coverage, Incidence, coverage, expected_distinct, greedy_subset
from saes.scope.item_results import (
    checked,
    checked_at_random,
    correlation,
    redundancy_by_results,
)
from saes.scope.overlap import DRAWS, Tree, agreement, dealt_anew, halves, overlaps, tree_of
from saes.suite import Suite

SCHEMA = "coverage/1"
FEATURES, UNTRAINED, TOKENS = "features", "untrained", "tokens"
UNITS = (FEATURES, UNTRAINED, TOKENS)
Results = Mapping[str, Float[Tensor, "items models"]]
"What models got right, of sets that have it: samples in their order."


@dataclass(frozen=True, kw_only=True)
class CoverConfig:
    """What is asked of the sets."""

    keep: float = 0.95
    "share of a set's distinct units that its subset keeps"
    common_share: float = 0.0
    "units on in more than this share of the common texts are left out; 0: in any"
    draws: int = DRAWS
    "of samples dealt anew, for each pair of sets"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is {self.keep}: expected a share, more than 0 and at most 1")
        if not 0 <= self.common_share < 1:
            raise ValueError(
                f"common_share is {self.common_share}: expected a share of the texts, below 1"
            )
        check_at_least(1, self, "draws")


def covered(
    model: TransformerBridge,
    suite: Suite,
    sets: Mapping[str, Sequence[str]],
    config: CoverConfig | None = None,
    *,
    common: Sequence[str] = (),
    results: Results | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """What each set of texts turns on, how redundant it is, and what it shares with the others.

    Units on in `common` texts are left out. With `results` redundancy is held against what models
    got right.

    Raises `ValueError` for a set without texts, and for results of other items than its texts.
    """
    config = config or CoverConfig()
    _check(sets, results or {})
    texts = [text for some in (*sets.values(), common) for text in some]
    ends = list(accumulate(map(len, (*sets.values(), common)), initial=0))
    at = min(map(len, sets.values()))
    control = untrained(suite, seed=config.seed)
    read = read_through(model, suite, texts, beside=[control], report=report)
    every = {
        FEATURES: Incidence.of_activity(read.activity),
        UNTRAINED: Incidence.of_activity(read.beside[0]),
        TOKENS: _tokens(model, texts),
    }
    units: dict[str, Any] = {}
    matrices: dict[str, Tensor] = {}
    by_unit: dict[str, dict[str, Incidence]] = {}
    for number, (name, incidence) in enumerate(every.items()):
        *parts, shared = (incidence.part(*both) for both in pairwise(ends))
        removed = _common(shared, config.common_share)
        by_unit[name] = {s: p.without(removed) for s, p in zip(sets, parts, strict=True)}
        matrices[name] = overlaps(list(by_unit[name].values()))
        units[name] = {
            "removed": int(removed.sum()),
            **_unit(by_unit[name], matrices[name], at, config),
            "agreement": _agreed(matrices[FEATURES], matrices[name], config.seed),
        }
        report("comparing sets", number + 1, len(every))
    by_dictionary = _by_dictionary(read.activity, dict(zip(sets, pairwise(ends), strict=False)))
    for name, found in by_dictionary.items():
        units[FEATURES]["sets"][name]["by_dictionary"] = found
    return {
        "schema": SCHEMA,
        "sets": list(sets),
        "keep": config.keep,
        "at": at,
        "longest": LONGEST,
        "texts_cut": int(read.activity.was_cut[: ends[-2]].sum()),
        "common": {"texts": len(common), "share": config.common_share} if common else None,
        "units": units,
        "results": _results(units, by_unit, results, config.seed) if results else None,
    }


def _check(sets: Mapping[str, Sequence[str]], results: Results) -> None:
    for name, texts in sets.items():
        if not texts:
            raise ValueError(f"the set {name!r} has no texts")
    for name, correct in results.items():
        if name not in sets:
            raise ValueError(f"results are of {name!r}, but the sets are {', '.join(sets)}")
        if len(correct) != len(sets[name]):
            raise ValueError(
                f"results of {name!r} are of {len(correct)} items, but {len(sets[name])} of its "
                "texts are read: give a result for each, or read as many texts"
            )


def _tokens(model: TransformerBridge, texts: Sequence[str]) -> Incidence:
    """The distinct tokens of each text, of those that are read."""
    rows = [encode_prompt(model.tokenizer, text)[:LONGEST] for text in texts]
    return Incidence.of_rows(rows, len(model.tokenizer))


def _common(shared: Incidence, share: float) -> Bool[Tensor, " units"]:
    counts = shared.unit.bincount(minlength=shared.units)
    return counts > share * shared.samples


def _unit(
    parts: Mapping[str, Incidence],
    overlap: Float[Tensor, "sets sets"],
    at: int,
    config: CoverConfig,
) -> dict[str, Any]:
    """What is told of one kind of unit."""
    some, of = list(parts.values()), next(iter(parts.values())).units
    found = [coverage(part, keep=config.keep, seed=config.seed) for part in some]
    dealt = _all_dealt(some, config)
    return {
        "of": of,
        "on": len(torch.cat([part.unit for part in some]).unique()),
        "sets": {
            name: _set(one, part, at)
            for one, (name, part) in zip(found, parts.items(), strict=True)
        },
        "overlap": _rows(overlap),
        "dealt_anew": dealt,
        "halves": [
            _number(halves(part, draws=config.draws, seed=config.seed).mean()) for part in some
        ],
        "random": [rounded(one.share) for one in found],
        "tree": _tree(tree_of(overlap)),
    }


def _set(found: Coverage, part: Incidence, at: int) -> dict[str, Any]:
    equal = expected_distinct(part.counts(), part.samples, at)
    record = asdict(found) | {"redundancy_at": at / equal if equal else None}
    return rounded_all(record)


def _all_dealt(some: Sequence[Incidence], config: CoverConfig) -> dict[str, Any]:
    """Overlaps of samples dealt anew: mean, and both ends of 95 % of the draws, as matrices."""
    n = len(some)
    found = torch.full((3, n, n), torch.nan, dtype=torch.float64)
    for i in range(n):
        for j in range(i):
            drawn = dealt_anew(some[i], some[j], draws=config.draws, seed=config.seed)
            ends = drawn.quantile(torch.tensor([0.025, 0.975], dtype=drawn.dtype), 0)
            found[0, i, j], found[0, j, i] = drawn.mean(0)
            found[1:, i, j], found[1:, j, i] = ends.T
    return {
        name: _rows(matrix) for name, matrix in zip(("mean", "low", "high"), found, strict=True)
    }


def _agreed(own: Tensor, other: Tensor, seed: int) -> dict[str, Any] | None:
    """How far overlaps of a unit rank the pairs of sets as features do."""
    found = agreement(own, other, seed=seed)
    return None if found is None else rounded_all(asdict(found))


def _tree(tree: Tree) -> dict[str, Any]:
    return {"order": tree.order, "merges": [[a, b, rounded(h)] for a, b, h in tree.merges]}


def _by_dictionary(
    activity: Activity, ends: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, int]]:
    """Features of each dictionary that are on in each set, whatever is common."""
    starts = list(accumulate(activity.widths, initial=0))
    found = {}
    for name, (start, stop) in ends.items():
        on = activity.feature[(activity.text >= start) & (activity.text < stop)].unique()
        found[name] = {
            dictionary: int(((on >= low) & (on < high)).sum())
            for dictionary, (low, high) in zip(activity.names, pairwise(starts), strict=True)
        }
    return found


def _results(
    units: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Incidence]],
    results: Results,
    seed: int,
) -> dict[str, Any]:
    """Redundancy by results beside that by units; greedy subsets as stand-ins for their sets."""
    sets: dict[str, Any] = {}
    for name, correct in results.items():
        subset = units[FEATURES]["sets"][name]["subset"]
        size = len(subset["samples"]) if subset else len(correct)
        chosen = {
            unit: greedy_subset(of_unit[name], keep=0.0, at_least=size)[0]
            for unit, of_unit in parts.items()
        }
        sets[name] = rounded_all(
            {
                "models": correct.shape[1],
                "accuracy": correct.double().mean(0).tolist(),
                "redundancy": redundancy_by_results(correct, seed=seed),
                "size": size,
                "subsets": {unit: asdict(checked(correct, some)) for unit, some in chosen.items()},
                "random": asdict(checked_at_random(correct, size, seed=seed)),
            }
        )
    tokens = {name: len(part.unit) / part.samples for name, part in parts[TOKENS].items()}
    return {"sets": sets, "correlations": _correlations(units, sets, tokens, seed)}


def _correlations(
    units: Mapping[str, Any], sets: Mapping[str, Any], tokens: Mapping[str, float], seed: int
) -> dict[str, Any] | None:
    """Each measure of redundancy against that by results, over the sets; their size beside it.

    `tokens` are the distinct ones of a text of each set: where texts are long, more is on.
    """
    known = [name for name, one in sets.items() if one["redundancy"] is not None]
    target = [sets[name]["redundancy"] for name in known]
    measures = {"samples": [float(units[FEATURES]["sets"][name]["samples"]) for name in known]}
    measures["tokens of a text"] = [tokens[name] for name in known]
    for unit in UNITS:
        for field in ("redundancy", "redundancy_at"):
            values = [units[unit]["sets"][name][field] for name in known]
            measures[f"{field} of {unit}"] = [math.nan if v is None else v for v in values]
    found = {name: correlation(values, target, seed=seed) for name, values in measures.items()}
    kept = {name: rounded_all(asdict(one)) for name, one in found.items() if one is not None}
    return kept or None


def _rows(matrix: Float[Tensor, "sets sets"]) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in matrix]


def _number(value: Tensor) -> float | None:
    return rounded(float(value)) if value.isfinite() else None
