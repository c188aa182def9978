"""A console on which a table loses no number, however narrow the terminal is."""

import re
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

WIDEST = 10_000
"Columns of a terminal on which every table fits."
NUMBER = re.compile(r"[-+–(]*(\d.*)?")
"What a cell of a column of numbers reads like: a number, an interval, a dash, or nothing."
LEAST = 8
"The `min_width` of texts that may be cut, such as labels; others are folded between words."


class FittingConsole(Console):
    """A console that narrows a table's texts and heads, and never its numbers.

    Labels are cut, names and heads folded between words, the widest first. A table that is too wide
    even then keeps its width, and the terminal breaks its lines.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich's console does, tables fitted."""
        for table in objects:
            if isinstance(table, Table) and fit(table, self):
                options["crop"] = False
        super().print(*objects, **options)


def fit(table: Table, console: Console) -> bool:
    """Narrow the texts of a table to the console; whether it is too wide even so."""
    total = _measured(console, table).maximum
    natural, floors = zip(*(_widths(column, console) for column in table.columns), strict=True)
    widths = list(natural)
    while total - sum(natural) + sum(widths) > console.width:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > floors[i], widths[i]))
        if widths[widest] <= floors[widest]:
            break
        widths[widest] -= 1
    if widths == list(natural) and total <= console.width:
        return False
    for column, width, whole in zip(table.columns, widths, natural, strict=True):
        column.width = width
        if column.min_width is None:
            column.no_wrap, column.overflow = width == whole, "fold"
    table.width = total - sum(natural) + sum(widths)
    return table.width > console.width


def _widths(column: Column, console: Console) -> tuple[int, int]:
    """How wide a column is by itself, and how narrow it may become."""
    head = _measured(console, column.header)
    cells = [_measured(console, cell) for cell in column.cells]
    whole = max(one.maximum for one in (head, *cells))
    whole = min(whole, column.max_width or whole)
    if column.min_width is not None:
        return max(whole, column.min_width), column.min_width
    numbers = all(NUMBER.fullmatch(str(cell)) for cell in column.cells)
    least = [one.maximum if numbers else one.minimum for one in cells]
    return whole, min(whole, max((head.minimum, *least)))


def _measured(console: Console, what: Any) -> Measurement:
    return Measurement.get(console, console.options.update_width(WIDEST), what)
