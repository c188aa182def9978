"""The page of a suite: its dictionaries with their quality, and a search over all features."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from circuits.render.pages.assets import compress, html, packed
from circuits.render.pages.feature.feature_page import SHEET
from circuits.render.pages.links import RunLinks
from circuits.render.words import readable

SCRIPTS = (
    *SHEET,
    "suite/data.mjs",
    "suite/search.mjs",
    "suite/list.mjs",
    "suite/main.mjs",
)
ALIGNMENT = 8
"Bytes: an array in the browser begins at a multiple of its element's size."


def suite_page(record: Mapping[str, Any], *, title: str, links: RunLinks | None = None) -> str:
    """One offline HTML page of a `feature-suite/1` record; raises `ValueError` on a NaN in it."""
    table, content = _laid_out(record["arrays"])
    texts = {key: [readable(text) for text in record[key]] for key in ("vocabulary", "labels")}
    features = sum(d["features"] for d in record["dictionaries"])
    facts = {
        "Model": record["model"],
        "Dictionaries": f"{len(record['dictionaries'])}",
        "Features": f"{features:,}",
        "Examples from": f"{record['tokens_seen']:,} tokens",
    }
    return html(
        "suite/suite.html",
        scripts=SCRIPTS,
        title=title,
        facts=list(facts.items()),
        record=compress({**record, **texts, "arrays": table, "run": links and asdict(links)}),
        arrays=packed(content),
    )


def _laid_out(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """NumPy arrays one after another, and a table of where each one is."""
    table, whole = {}, bytearray()
    for name, array in arrays.items():
        table[name] = {"type": array.dtype.str[1:], "shape": array.shape, "at": len(whole)}
        whole += array.tobytes()
        whole += bytes(-len(whole) % ALIGNMENT)
    return table, bytes(whole)
