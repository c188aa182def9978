"""What people and models say of features: `labels.json`, and whose word counts.

    {"mlp_out.3/812": {"text": "plural subjects", "by": "Ann"},
     "mlp_out.3/40": {"text": "words of motion", "by": "model gpt-4o-mini",
                      "scores": {"judge": "words", "detection": {...}, "fuzzing": {...}}}}

`by` says whose words they are: a model's begin with `model`; all others are a person's. A
person's count more than a model's, and these more than an automatic name (`circuits.features.
names`). The file stands in a run folder, or beside the dictionaries that it is about; of two words
of one rank those in the run folder count. `scores` says how well a judge tells by the words where
the feature is on (`circuits.features.describe`), with the same by descriptions of something else in
`controls`; a label need not have them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.graph import write_json

LABELS = "labels.json"
PERSON, MODEL = "a person", "model"
FEATURE = re.compile(r"[^/\s]+/\d+")


@dataclass(frozen=True, kw_only=True)
class Label:
    """What somebody calls a feature."""

    text: str
    by: str = PERSON
    scores: Mapping[str, Any] | None = None
    "how good it is, as far as a judge has looked: by `detection` and `fuzzing`"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a label is empty: leave the feature out instead")

    @property
    def of_person(self) -> bool:
        """Whether a person says it."""
        return not re.match(rf"{MODEL}\b", self.by)


Labels = Mapping[str, Label]
"By SITE/FEATURE."


def read_labels(path: Path) -> dict[str, Label]:
    """The labels in a file, none where there is no file; raises `ValueError` naming what is wrong
    in one that is there.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, Mapping):
            raise ValueError(f"it holds {type(record).__name__}, expected an object")
        return {key: _label(key, found) for key, found in record.items()}
    except ValueError as error:
        raise ValueError(f"cannot read labels from {path}: {error}") from None


def _label(key: str, found: Any) -> Label:
    if not FEATURE.fullmatch(key):
        raise ValueError(f"{key!r} is no feature: write SITE/INDEX, such as 'mlp_out.3/812'")
    if isinstance(found, str):
        found = {"text": found}
    fields = isinstance(found, Mapping) and found
    if not fields or not all(isinstance(fields.get(k, ""), str) for k in ("text", "by")):
        raise ValueError(f'{key} is {found!r}, expected {{"text": "plural subjects", "by": "Ann"}}')
    scores = fields.get("scores")
    if scores is not None and not isinstance(scores, Mapping):
        raise ValueError(f"the scores of {key} are {scores!r}, expected an object")
    return Label(text=fields.get("text", ""), by=fields.get("by") or PERSON, scores=scores)


def write_labels(labels: Labels, path: Path) -> None:
    """Write labels in the order of sites and numbers, whole or not at all."""

    def place(key: str) -> tuple[str, int]:
        site, _, index = key.rpartition("/")
        return site, int(index)

    write_json({key: _record(labels[key]) for key in sorted(labels, key=place)}, path)


def _record(label: Label) -> dict[str, Any]:
    return {name: value for name, value in asdict(label).items() if value is not None}


def merged(tables: Iterable[Labels]) -> dict[str, Label]:
    """One label for each feature: a person's where there is one, the last of equal rank."""
    found: dict[str, Label] = {}
    for table in tables:
        for key, label in table.items():
            if key not in found or label.of_person >= found[key].of_person:
                found[key] = label
    return found


def labelled(graph: nx.DiGraph, labels: Labels) -> nx.DiGraph:
    """A copy of the graph whose features are called as the labels say, and `label_by` whom."""
    named = graph.copy()
    for node, data in named.nodes(data=True):
        if node.kind == "feature" and (label := labels.get(f"{node.site}/{node.feature}")):
            data.update(label=label.text, label_by=label.by)
    return named


def called(card: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A feature's card with its name, and those of its neighbours, as `names` has them."""

    def named(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "label": names.get(row["feature"], row["label"])}

    nearest = {kind: [named(row) for row in rows] for kind, rows in card["nearest"].items()}
    return {**named(card), "nearest": nearest}


def scored(card: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """A feature's card with who named it, and how good the name is where that was looked at."""
    label = labels.get(card["feature"])
    if label is None or label.text != card["label"]:
        return dict(card)
    return {**card, "label_by": label.by, **({"scores": label.scores} if label.scores else {})}


def called_in_suite(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The record of a suite with the names that `names` has of its features."""
    keys = [f"{d['name']}/{i}" for d in record["dictionaries"] for i in range(d["features"])]
    labels = [names.get(k, label) for k, label in zip(keys, record["labels"], strict=True)]
    return {**record, "labels": labels}
