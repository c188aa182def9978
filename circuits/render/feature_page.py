"""One feature's card as one offline HTML page, and the machinery it shares with the suite's page.

Everything that came from a model reaches the browser as JSON and is set as text, never as markup.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from circuits.render.document import embed
from circuits.render.words import readable

HERE = Path(__file__).parent
# Control characters have pictures of their own; what reorders or breaks a line is spelled out.
PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
UNSEEN = (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)
VISIBLE = PICTURES | {code: f"‹U+{code:04X}›" for code in UNSEEN}
LISTS = ("examples", "sampled")


def feature_page(card: Mapping[str, Any]) -> str:
    """One offline HTML page of a `feature-card/1` record; raises `ValueError` on a NaN in it."""
    return html(
        "feature.html",
        scripts=("page_dom.js", "feature_card.js", "feature_main.js"),
        title=f"{card['feature']}: {visible(card['label'])}",
        card=shown(card),
    )


def html(template: str, *, scripts: Sequence[str], **context: Any) -> str:
    """A page from one of our templates, its style sheets and scripts inside it."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["embed"] = embed
    own = "\n".join(map(_asset, scripts))
    return environment.get_template(template).render(
        css=Markup(_asset("page.css") + _asset("feature.css")),
        js=Markup(f'(() => {{\n"use strict";\n{own}\n}})();'),
        **context,
    )


def visible(text: str) -> str:
    """A token with every character that would move, break or reorder a line spelled out."""
    return readable(text).translate(VISIBLE)


def shown(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card with its texts as a page writes them."""
    nearest = {
        kind: [{**row, "label": visible(row["label"])} for row in rows]
        for kind, rows in card["nearest"].items()
    }
    examples = {
        key: [{**e, "tokens": [visible(t) for t in e["tokens"]]} for e in card[key]]
        for key in LISTS
    }
    tokens = {
        key: [[visible(token), score] for token, score in card[key]]
        for key in ("promoted", "suppressed")
    }
    return {**card, **examples, **tokens, "label": visible(card["label"]), "nearest": nearest}


@cache
def _asset(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    end = "</style" if name.endswith("css") else "</script"
    assert end not in text.lower(), f"{name} holds {end!r} and would end its own element"
    return text
