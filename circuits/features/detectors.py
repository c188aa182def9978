"""Detectors as strict JSON records: made and judged, read again, run over texts.

    {"schema": "feature-detector/1", "threshold": 1.2, "longest": 256,
     "features": [{"feature": "resid_post.3/86", "label": ..., "usual": 14.2}, ...],
     "methods": [{"name": "features", "f1": .98, "auroc": .99, ...}, ...],
     "by_texts": {"1": [{"name": "features", ...}, ...], "5": ...},  learned from fewer of each kind
     "by_features": {"1": [{"name": "features", ...}, {"name": "untrained ...}], "2": ...},
     "by_share": {"1": 1, "5": 2, ...}   percent of the texts, in texts of each kind, as `by_texts`
     "texts": {"train": .., "held_out": .., "test": ..}, "positives": {...}}

`circuits.scope` adds what is detected, and what the record was made from.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.named import Named, key_of
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from saes.evaluation.baselines import untrained
from saes.formats.reading import field, read_json
from saes.scope.activity import LONGEST, activity_of, read_through
from saes.scope.classify import SIZES, Method, Parts, by_features, by_stream, by_words, only
from saes.scope.detector import Across, Detector
from saes.suite import MlpChoice, Suite

SCHEMA = "feature-detector/1"
TEXTS_AT_ONCE = 64
FEW = (1, 2, 5, 10, 20, 50, 100)
"Texts of each kind that are learned from, where there are more."
PERCENT = (1, 5, 10, 50, 100)
"Shares of the texts that are learned from."
SHOWN = 80
"Characters of a text that a line of `detect` repeats."


def classified(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    positive: Bool[Tensor, " texts"],
    parts: Parts,
    named: Named,
    *,
    across: Across = "one",
    seed: int = 0,
    report: Report = silent,
) -> dict[str, Any]:
    """A detector of the `positive` texts, and how every method does on the test part.

    Raises `ValueError` where no feature is on in more positive texts than negative ones.
    """
    sites = [Site("resid_post", layer) for layer in range(len(model.blocks))]
    reading = read_through(model, suite, texts, sites=sites, report=report)
    _, detector = by_features(reading.activity, positive, parts, across=across)
    if detector is None:
        raise ValueError(
            "no feature is on in more positive texts than negative ones: more texts are needed, "
            "or other dictionaries"
        )
    control = activity_of(model, untrained(suite, seed=seed), texts, report=report)

    def by_both(some: Parts, sizes: Sequence[int] = SIZES) -> list[Method]:
        either = (("features", reading.activity), ("untrained dictionaries", control))
        return [
            by_features(activity, positive, some, name=name, sizes=sizes, across=across)[0]
            for name, activity in either
        ]

    def every_method(some: Parts) -> list[dict[str, Any]]:
        others = [*by_stream(reading.means, positive, some), by_words(texts, positive, some)]
        return [_record(method) for method in (*by_both(some), *others)]

    learned = (parts.train | parts.held_out) & positive, (parts.train | parts.held_out) & ~positive
    most = min(int(kind.sum()) for kind in learned)
    shares = {str(percent): max(1, round(percent / 100 * most)) for percent in PERCENT}
    counts = sorted({n for n in (*FEW, *shares.values()) if n < most})
    labels = named.of(detector.nodes)
    pairs = zip(detector.nodes, detector.usual, strict=True)
    counted = {"train": parts.train, "held_out": parts.held_out, "test": parts.test}
    return {
        "schema": SCHEMA,
        "threshold": detector.threshold,
        "longest": LONGEST,
        "features": [
            {"feature": key_of(node), "label": labels[node], "usual": usual}
            for node, usual in pairs
        ],
        "methods": every_method(parts),
        "by_texts": {str(n): every_method(only(parts, positive, n, seed=seed)) for n in counts},
        "by_features": {
            str(k): [_record(method) for method in by_both(parts, (k,))] for k in SIZES
        },
        "by_share": shares,
        "texts": {name: int(part.sum()) for name, part in counted.items()},
        "positives": {name: int((part & positive).sum()) for name, part in counted.items()},
    }


def _record(method: Method) -> dict[str, Any]:
    figures = {
        name: [rounded(end) for end in value] if isinstance(value, list) else value
        for name, value in asdict(method.figures).items()
    }
    return {
        "name": method.name,
        "choice": method.choice,
        "threshold": rounded(method.threshold),
        **{n: rounded(v) if isinstance(v, float) else v for n, v in figures.items()},
    }


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
