"""The columns of a sheet: a token's each, neighbours without nodes folded into one."""

from dataclasses import dataclass

from circuits.render.figure.ink import fold, measure
from circuits.render.figure.sheet import GAP, TEXT
from circuits.render.layout import Layout

HEADS = (0.5, 0.34)  # widest text of a token under its column


@dataclass(frozen=True, kw_only=True)
class SheetColumn:
    """A column of the sheet: one of the layout's, or several without nodes."""

    index: int  # of the layout's, the first where several are folded
    lines: tuple[str, ...]
    folded: bool = False

    @property
    def width(self) -> float:
        return max(measure(line, TEXT) for line in self.lines) + GAP


def columns_of(places: Layout, used: set[int], room: float) -> list[SheetColumn]:
    """The layout's columns, neighbours that have no node folded into one.

    Where there is less than the usual `room` for a token, one without nodes is folded too.
    """
    if len(places.columns) == 1:
        return [SheetColumn(index=0, lines=(places.columns[0].token,))]
    found: list[SheetColumn] = []
    index = 0
    while index < len(places.columns):
        end = index
        while end < len(places.columns) and end not in used:
            end += 1
        if end - index > 1:
            lines = (f"… {end - index}", "tokens …")
            found.append(SheetColumn(index=index, lines=lines, folded=True))
        elif end > index and room < HEADS[0]:
            found.append(SheetColumn(index=index, lines=("…",), folded=True))
        else:
            lines = fold(places.columns[index].token, TEXT, room, 2)
            found.append(SheetColumn(index=index, lines=tuple(lines)))
        index = max(end, index + 1)
    return found
