"""`circuits compare`: what changed between two graphs, as rows and as a page."""

from pathlib import Path

from circuits.comparison import Difference, differences, different_origins
from circuits.render.pages.circuit.compare_page import comparison_page
from circuits.runs.overwrite import (
    check_page,
    digest,
    signed,
)
from circuits.runs.pages import cards_beside, named_graph
from hooked_qwen.files import write_text_atomically
from hooked_qwen.notices import notify


def compare_runs(a: Path, b: Path, out: Path, *, force: bool = False) -> list[Difference]:
    """What changed between two graphs, files or in folders; writes the page and returns its rows.

    Raises `ValueError` where `out` is anything but a page of the same two, unless by `force`.
    """
    first, second = named_graph(a), named_graph(b)
    rows = differences(first, second)
    source = digest(*(path.resolve().as_posix() for path in (a, b)))
    check_page(out, source, force=force)
    for line in different_origins(first, second):
        notify(line)
    cards = {**cards_beside(b), **cards_beside(a)}
    html = comparison_page(first, second, rows, names=names_of(a, b), cards=cards)
    text = signed(html, source)
    write_text_atomically(out, text)
    return rows


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """Names of two runs, with the folders above where these tell what the last does not."""
    first, second = (folder.resolve().parts[1:] for folder in (a, b))
    for length in range(1, max(len(first), len(second)) + 1):
        names = ["/".join(parts[-length:]) for parts in (first, second)]
        if names[0] != names[1]:
            return names[0], names[1]
    return "A", "B"
