"""The page of a sweep: what does best, the heat map, what is written side by side."""

from collections.abc import Mapping
from typing import Any

from circuits.render.charts.steering_map import steering_note, steering_rows
from circuits.render.pages.assets import html
from circuits.render.words import counted, readable

SCRIPTS = (
    *("dom.mjs", "numbers.mjs", "interval_strip.mjs", "rerun/parts.mjs"),
    *("steer/map.mjs", "steer/written.mjs", "steer/main.mjs"),
)
FEATURES = ("given", "output", "activation")
"Groups of features, in `methods` of a record."
LEAST = 0.005
"A score that is written as 0.00 is below it."
DURING = {
    "all": "prompt and text",
    "prompt": "prompt",
    "generated": "text",
    "last": "last token of the prompt, and text",
}

OTHERS = "other prompts"
JUDGED = {
    OTHERS: "Each half of the prompts is judged at the direction and strength that did best on the "
    "other half.",
    "the same prompts": "Direction and strength are those that did best on the same prompts, which "
    "are too few to halve: what has most of them to choose from looks best.",
}
"By where directions and strengths were chosen."
FORMS = {"text": "", "chat": ", through the chat template"}


def verdict(record: Mapping[str, Any]) -> str:
    """What does best, in a sentence; whatever is ahead of the features is named first."""
    best = record["methods"][0]
    if best["score"]["value"] < LEAST:
        return "best: none; nothing tried both reaches the concept and stays fluent"
    own = next(one for one in record["methods"] if one["group"] in FEATURES)
    said = f"best: {best['name']}, {_told(best)}"
    if best is own:
        rest = next(one for one in record["methods"] if one["group"] not in FEATURES)
        said += f"; best control: {rest['name']}, {_told(rest)}"
    else:
        said += f"; {own['name']}, {_told(own)}"
    found = record["selection"]
    if found and found["ratio"] and record["chosen_on"] == OTHERS:
        own, other = (found[way]["value"] for way in ("output", "activation"))
        # A ratio of two scores that are nearly nothing says nothing.
        if max(own, other) >= LEAST:
            said += (
                f". A feature chosen by output score does {_figure(found['ratio'])} times as well "
                f"as one chosen by activation ({own:.2f} against {other:.2f})"
            )
    return said


def _told(one: Mapping[str, Any]) -> str:
    return _figure(one["score"])


def _figure(figure: Mapping[str, Any]) -> str:
    value, ends = figure["value"], figure["interval"]
    between = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    return f"{value:.2f}{between}"


def steer_page(record: Mapping[str, Any]) -> str:
    """One offline HTML page of a `steering/1` record; raises `ValueError` on a NaN in it."""
    written = record["generation"]
    drawn = f"temperature {written['temperature']:g}, seed {written['seed']}"
    facts = {
        "Concept": f"{record['goal']} of {record['scorer']['name']}",
        "Steered by": f"{record['do']}, at {DURING[record['during']]}",
        "Model": record.get("model", ""),
        "Prompts": counted(len(record["prompts"]), "prompt") + FORMS[record["form"]],
        "Written": f"{written['tokens']} tokens, {drawn if written['temperature'] else 'greedily'}",
    }
    rows = [
        {"name": row.name, "cells": [{"strength": s, **_cell(c)} for s, c in row.cells.items()]}
        for row in steering_rows(record)
    ]
    shown = {
        "rows": rows,
        "prompts": record["prompts"],
        "instruction": record["instruction"],
        "methods": record["methods"],
        "baseline": record["baseline"],
        "selection": record["selection"],
        "features": record["features"],
        "notes": record["notes"],
        "verdict": verdict(record),
        "note": steering_note(record),
        "judged": JUDGED[record["chosen_on"]],
        "goal": record["goal"],
        "during": record["during"],
        "scorer": record["scorer"],
    }
    return html(
        "steer/steer.html",
        scripts=SCRIPTS,
        sheets=("rerun/rerun.css", "interval_strip.css", "steer/steer.css"),
        title=f"Steering: {readable(record['scorer']['name'])}",
        facts=[(term, value) for term, value in facts.items() if value],
        record=_readable(shown),
    )


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("concept", "fluency", "score", "perplexity", "repetition", "kl", "by_prompt", "texts")
    arm = ("method", "direction", "of", "groups", "alpha", "norm")
    return {key: cell[key] for key in (*keys, *arm) if key in cell}


def _readable(value: Any) -> Any:
    """A record whose texts are as a page writes them."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {name: _readable(part) for name, part in value.items()}
    return [_readable(part) for part in value] if isinstance(value, list | tuple) else value
