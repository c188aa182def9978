"""One feature's card as one offline HTML page, and what every page with a card has."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from circuits.render.pages.assets import html
from circuits.render.pages.links import RunLinks
from circuits.render.words import readable

LISTS = ("examples", "sampled")
SHEET = ("dom.mjs", "numbers.mjs", "bars.mjs", "histogram.mjs", "feature/card.mjs")
"Scripts that a card needs."


def feature_page(card: Mapping[str, Any], links: RunLinks | None = None) -> str:
    """One offline HTML page of a `feature-card/1` record; raises `ValueError` on a NaN in it."""
    run = asdict(links) | {"nodes": links.nodes.get(card["feature"], [])} if links else None
    return html(
        "feature/feature.html",
        scripts=(*SHEET, "feature/main.mjs"),
        title=f"{card['feature']}: {readable(card['label'])}",
        card=shown(card) | {"run": run},
    )


def shown(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card with its texts as a page writes them."""
    nearest = {
        kind: [{**row, "label": readable(row["label"])} for row in rows]
        for kind, rows in card["nearest"].items()
    }
    examples = {
        key: [{**e, "tokens": [readable(t) for t in e["tokens"]]} for e in card[key]]
        for key in LISTS
    }
    tokens = {
        key: [[readable(token), score] for token, score in card[key]]
        for key in ("promoted", "suppressed")
    }
    return {**card, **examples, **tokens, "label": readable(card["label"]), "nearest": nearest}
