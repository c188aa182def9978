"""Features searched by texts, by a token, by labels: opened, done, written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circuits.features.named import Named
from circuits.features.search import by_contrast, by_label, by_token, in_text
from circuits.graph import write_json
from circuits.suites import feature_names, load_model
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from saes.scope.contrast import By
from saes.suite import MlpChoice, load_suite


def search(
    dictionaries: str,
    model: str = "bundled",
    *,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    text: str | None = None,
    token: str | None = None,
    label: str | None = None,
    by: By = "share",
    top: int = 20,
    texts: int = 200,
    mlp: MlpChoice = "sae",
    seed: int = 0,
    out: Path | None = None,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Features by exactly one of: two sets of texts, a text, a token, words of their labels.

    `positive` and `negative` are sources of texts, as `--text` takes them, of which the first
    `texts` each are read. The record also goes to the file `out`.

    Raises `ValueError` for another number of ways to search, or for half a contrast.
    """
    asked = {"--positive": positive, "--text": text, "--token": token, "--label": label}
    given = [name for name, value in asked.items() if value]
    if len(given) != 1:
        raise ValueError(
            "search by one of --positive with --negative, --text, --token, --label: "
            f"got {', '.join(given) or 'none'}"
        )
    if bool(positive) != bool(negative):
        raise ValueError("a contrast takes --positive and --negative, texts of each")
    names = feature_names(dictionaries)
    if label is not None:
        record = by_label(names, label, top=top)
    else:
        suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
        loaded = load_model(model, report, placement)
        suite.notify_of_another_model(loaded)
        named = Named(loaded, suite, names)
        if text is not None:
            record = in_text(loaded, suite, text, named)
        elif token is not None:
            record = by_token(loaded, suite, token, named, top=top)
        else:
            first, second = (_first(sources, texts) for sources in (positive, negative))
            record = by_contrast(
                loaded, suite, first, second, named, by=by, top=top, seed=seed, report=report
            )
    if out is not None:
        write_json(record, out)
    return record


def _first(sources: Sequence[str], count: int) -> list[str]:
    found = []
    for text in texts_of(sources)():
        if text.strip():
            found.append(text)
        if len(found) == count:
            break
    return found
