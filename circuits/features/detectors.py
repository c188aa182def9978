"""Detectors as strict JSON records: made and judged, read again, run over texts.

    {"schema": "feature-detector/1", "threshold": 1.2, "longest": 256,
     "features": [{"feature": "resid_post.3/86", "label": ..., "usual": 14.2, "card": {...}}, ...],
     "methods": [...], "by_texts": {...}, "by_features": {...},     as `judged_methods` has them
     "tests": {"zh": {"methods": ..., "by_texts": ..., "by_features": ..., "texts": .., ...}},
     "by_share": {"1": 1, "5": 2, ...}   percent of the texts, in texts of each kind, as `by_texts`
     "texts": {"train": .., "held_out": .., "test": ..}, "positives": {...}}

A card is as `detector_cards` has it; files without cards are read too. `tests` has the figures on
further texts. `circuits.scope` adds what is detected, and what the record was made from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.detector_cards import ChosenOn, detector_cards
from circuits.features.judged_methods import learned, read_texts, shares, tables
from circuits.features.named import Named, key_of
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from saes.formats.reading import field, read_json
from saes.scope.activity import LONGEST, activity_of
from saes.scope.classify import AcrossChoice, TextSplit, by_features
from saes.scope.detector import Detector
from saes.suite import MlpChoice, Suite

SCHEMA = "feature-detector/1"
TEXTS_AT_ONCE = 64
SHOWN = 80
"Characters of a text that a line of `detect` repeats."


def classified(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    positive: Bool[Tensor, " texts"],
    parts: TextSplit,
    named: Named,
    *,
    tests: Mapping[str, Bool[Tensor, " texts"]] | None = None,
    across: AcrossChoice = "one",
    seed: int = 0,
    report: Report = silent,
) -> dict[str, Any]:
    """A detector of the `positive` texts, and how every method does on the test part.

    And on further `tests`, by their names, with the same thresholds.

    Raises `ValueError` where no feature is on in more positive texts than negative ones.
    """
    read = read_texts(model, suite, texts, seed=seed, report=report)
    _, detector = by_features(read.activity, positive, parts, across=across)
    if detector is None:
        raise ValueError(
            "no feature is on in more positive texts than negative ones: more texts are needed, "
            "or other dictionaries"
        )
    train = parts.train.nonzero().flatten()
    chosen_on = ChosenOn(
        texts=[texts[int(i)] for i in train.tolist()],
        positive=positive[train],
        activity=read.activity.of_texts(train),
    )
    found = tables(read, positive, parts, across=across, seed=seed)
    counted = {"train": parts.train, "held_out": parts.held_out, "test": parts.test}
    return {
        "schema": SCHEMA,
        "threshold": detector.threshold,
        "longest": LONGEST,
        "features": _features(
            detector, named, detector_cards(model, suite, detector.nodes, chosen_on)
        ),
        **found.judged_on(positive, parts.test),
        "tests": {
            name: {
                **found.judged_on(positive, judged),
                "texts": int(judged.sum()),
                "positives": int((judged & positive).sum()),
            }
            for name, judged in (tests or {}).items()
        },
        "by_share": shares(learned(positive, parts)),
        "texts": {name: int(part.sum()) for name, part in counted.items()},
        "positives": {name: int((part & positive).sum()) for name, part in counted.items()},
    }


def _features(
    detector: Detector, named: Named, cards: Mapping[Node, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    labels = named.of(detector.nodes)
    return [
        {"feature": key_of(node), "label": labels[node], "usual": usual, "card": cards[node]}
        for node, usual in zip(detector.nodes, detector.usual, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class SavedDetector:
    """A detector as its file has it."""

    detector: Detector
    labels: tuple[str, ...]
    longest: int
    dictionaries: str
    "hash of those that it was made with"
    mlp: MlpChoice
    model: str
    "hash of the model"


def read_detector(path: Path) -> SavedDetector:
    """Raises `ValueError` naming the file where it is no detector."""
    record = read_json(path)
    if record.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no detector: its schema is {record.get('schema')!r}")
    made_from = field(record, path, "made_from", dict)
    features = field(record, path, "features", list)
    try:
        nodes = tuple(Node.parse(one["feature"]) for one in features)
        usual = tuple(float(one["usual"]) for one in features)
        labels = tuple(str(one["label"]) for one in features)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a feature that cannot be read: {error}") from None
    if not nodes or min(usual) <= 0:
        raise ValueError(f"{path} has no features that can be on")
    threshold = float(field(record, path, "threshold", float))
    return SavedDetector(
        detector=Detector(nodes=nodes, usual=usual, threshold=threshold),
        labels=labels,
        longest=field(record, path, "longest", int),
        dictionaries=field(made_from, path, "dictionaries", str),
        mlp=field(made_from, path, "mlp", str),
        model=field(record, path, "model_hash", str),
    )


def detected(
    model: TransformerBridge, suite: Suite, texts: Iterable[str], found: SavedDetector
) -> Iterator[dict[str, Any]]:
    """One record for each text: its score, whether it counts, the feature that says so.

    Texts are read some at a time, so that a stream of them may be as long as it likes.
    """
    stream = (text for text in texts if text.strip())
    while some := list(islice(stream, TEXTS_AT_ONCE)):
        activity = activity_of(model, suite, some, longest=found.longest)
        scores = found.detector.by_feature(activity)
        strongest = scores.max(1)
        rows = zip(some, strongest.values.tolist(), strongest.indices.tolist(), strict=True)
        for text, score, place in rows:
            yield {
                "text": text[:SHOWN],
                "score": rounded(score),
                "positive": score > found.detector.threshold,
                "feature": key_of(found.detector.nodes[place]) if score > 0 else None,
                "label": found.labels[place] if score > 0 else None,
            }
