"""Which ways to search for features go together; light to import, to be asked before models are."""

from collections.abc import Sequence
from pathlib import Path


def check_ways(
    *,
    positive: Sequence[str],
    negative: Sequence[str],
    prompts: Path | None,
    text: str | None,
    token: str | None,
    label: str | None,
    metric: str | None,
) -> None:
    """Raise `ValueError` unless exactly one way is asked for, with what belongs to it."""
    ways = {
        "--positive": positive,
        "--prompts": prompts,
        "--text": text,
        "--token": token,
        "--label": label,
    }
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        raise ValueError(
            "search by one of --positive with --negative, --prompts, --text, --token, --label: "
            f"got {', '.join(given) or 'none'}"
        )
    if bool(positive) != bool(negative):
        raise ValueError("a contrast takes --positive and --negative, texts of each")
    if metric is not None and not (positive or prompts):
        raise ValueError(f"a metric is of two sets of texts or of prompts, not of {given[0]}")
