"""The page of a search for features: the ranked list, and texts coloured by one of them."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from circuits.render.pages.assets import compress, html, to_json
from circuits.render.words import readable

SCRIPTS = (
    *("dom.mjs", "numbers.mjs"),
    *("interval_strip.mjs", "search/table.mjs", "search/strip.mjs", "search/main.mjs"),
)
KEPT = ("how", "by", "chance", "shuffles", "random", "agreement", "metric", "reference")
TITLES = {
    "contrast": "Features that tell two sets of texts apart",
    "effect": "Features by their effect on a metric",
    "text": "Features of a text",
    "token": "Features that promote a token",
    "label": "Features by their labels",
}


def search_page(
    record: Mapping[str, Any],
    texts: Sequence[Mapping[str, Any]] = (),
    labels: Mapping[str, str] | None = None,
    *,
    facts: Mapping[str, str] | None = None,
    pages: Mapping[str, str] | None = None,
) -> str:
    """One offline HTML page of a `feature-search/1` record; raises `ValueError` on a NaN in it.

    `texts` and `labels` are what `circuits.features.strips` makes, `pages` addresses of pages of
    features by SITE/INDEX. Notes that a reader writes stay in the browser, under what is shown.
    """
    found = [{**row, "label": readable(row["label"])} for row in ranked(record)]
    labels = {key: readable(label) for key, label in (labels or {}).items()}
    labels |= {row["feature"]: row["label"] for row in found}
    shown = {
        **{k: record[k] for k in KEPT if k in record},
        "texts_read": record.get("texts"),
        "features_on": record.get("features_on"),
        "found": found,
        "labels": labels,
        "pages": {k: v for k, v in (pages or {}).items() if k in labels},
        "texts": [_shown(text) for text in texts],
    }
    shown["page"] = sha256(to_json(shown).encode()).hexdigest()[:16]
    return html(
        "search/search.html",
        scripts=SCRIPTS,
        sheets=("interval_strip.css", "search/search.css"),
        title=TITLES[record["how"]],
        facts=list((facts or {}).items()),
        record=compress(shown),
    )


def ranked(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The features of a record in its order; of a text those on at a token, the largest first."""
    if record["how"] != "text":
        return [dict(row) for row in record["found"]]
    best: dict[str, dict[str, Any]] = {}
    for token in record["tokens"]:
        for row in token["features"]:
            known = best.get(row["feature"])
            if known is None or abs(row["activation"]) > abs(known["activation"]):
                best[row["feature"]] = dict(row)
    return sorted(best.values(), key=lambda row: -abs(row["activation"]))


def _shown(text: Mapping[str, Any]) -> dict[str, Any]:
    """A text with its tokens as a page writes them."""
    runs = [
        {
            **run,
            "text": readable(run["text"]),
            "pieces": [readable(piece) for piece in run["pieces"]],
        }
        for run in text["runs"]
    ]
    return {**{k: text[k] for k in ("kind", "tops", "on")}, "runs": runs}
