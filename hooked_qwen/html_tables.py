"""Paragraphs and tables by which things show themselves in a notebook."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

# pandas takes a second, and only those who look at a table need it.
if TYPE_CHECKING:
    from pandas import DataFrame

ROWS = 10
"Rows of a table that stand for all of a long one."


def paragraph(text: str) -> str:
    """`text` as it stands, whatever it holds."""
    return f"<p>{escape(text)}</p>"


def html_table(table: "DataFrame", *, index: bool = True) -> str:
    """A table with numbers to three digits after the point, its texts whole and escaped."""
    from pandas import option_context

    with option_context("display.max_colwidth", None):
        return table.to_html(float_format=lambda x: f"{x:.3f}", index=index)


def html_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of texts under the names of their columns."""
    from pandas import DataFrame

    return html_table(DataFrame(list(rows), columns=list(columns)), index=False)
