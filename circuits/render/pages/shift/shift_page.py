"""The page of a shifted classifier: its scores beside every baseline, and its features to judge."""

from collections.abc import Mapping
from typing import Any

from circuits.render.pages.assets import html
from circuits.render.pages.circuit.page import trimmed
from circuits.render.pages.feature.feature_page import SHEET
from circuits.render.words import readable

SCRIPTS = (*SHEET, "interval_strip.mjs", "shift/main.mjs")


def shift_page(record: Mapping[str, Any], cards: Mapping[str, Any]) -> str:
    """One offline HTML page of a `shift/1` record; raises `ValueError` on a NaN in it.

    `cards` are those of the first seed's circuit, by SITE/FEATURE.
    """
    (label, *labels), (spurious, *spurious_labels) = record["label"], record["spurious"]
    facts = {
        "Intended": f"{label}: {labels[0]} or {labels[1]}",
        "Spurious": f"{spurious}: {spurious_labels[0]} or {spurious_labels[1]}",
        "Model": record["model"],
        "Read at": ", ".join(dict.fromkeys(record["sites"])),
        "Seeds": f"{record['config']['seeds']}",
    }
    shown = {
        name: {
            **card,
            "examples": [
                {**e, "tokens": [readable(t) for t in e["tokens"]]} for e in card["examples"]
            ],
            **{
                key: [[readable(token), score] for token, score in card[key]]
                for key in ("promoted", "suppressed")
            },
        }
        for name, card in ((name, trimmed(card)) for name, card in cards.items())
    }
    return html(
        "shift/shift.html",
        scripts=SCRIPTS,
        sheets=("interval_strip.css", "shift/shift.css"),
        title=f"{label} without {spurious}: {record['data']}",
        facts=list(facts.items()),
        record={**record, "cards": shown},
    )
