"""Tables of numbers, a feature and its label in each row."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.fitting import LEAST
from circuits.render.words import readable


def feature_table(*columns: str) -> Table:
    """Numbers to the right, then the feature and its label."""
    return Table(
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        Column("feature", no_wrap=True),
        Column("label", min_width=LEAST, no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def feature_cells(found: Mapping[str, Any]) -> tuple[str, Text]:
    return found["feature"], Text(readable(found["label"]))
