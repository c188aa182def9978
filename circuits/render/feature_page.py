"""One feature's card as one offline HTML page, and what it shares with the suite's page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from circuits.render.assets import script, style, templates
from circuits.render.links import RunLinks
from circuits.render.words import readable

LISTS = ("examples", "sampled")
SHEET = (
    *("page_dom.mjs", "page_numbers.mjs", "page_histogram.mjs"),
    *("histogram.mjs", "feature_card.mjs"),
)
"Scripts that a card needs."


def feature_page(card: Mapping[str, Any], links: RunLinks | None = None) -> str:
    """One offline HTML page of a `feature-card/1` record; raises `ValueError` on a NaN in it."""
    run = asdict(links) | {"nodes": links.nodes.get(card["feature"], [])} if links else None
    return html(
        "feature.html",
        scripts=(*SHEET, "feature_main.mjs"),
        title=f"{card['feature']}: {readable(card['label'])}",
        card=shown(card) | {"run": run},
    )


def html(
    template: str, *, scripts: Sequence[str], sheets: Sequence[str] = (), **context: Any
) -> str:
    """A page from one of our templates, its style sheets and scripts inside it."""
    return (
        templates()
        .get_template(template)
        .render(
            styles=[style("page.css", "heading.css", "feature.css", *sheets)],
            script=script(scripts),
            **context,
        )
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
