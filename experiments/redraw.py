"""Draw the figures that stand beside the records of experiments again, with no model.

    python -m experiments.redraw [RECORD.json ...]

A record's schema says which figures it has; what a figure was not made of before is left alone. A
change of a renderer is followed by this, so that the figures are what the renderers draw.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.render.charts.coverage import growth_figure, overlap_figure
from circuits.render.charts.steering_map import steering_map
from circuits.render.charts.synthesis import synthesis_figure
from circuits.render.charts.tune_figure import tune_figure

Draw = Callable[[Mapping[str, Any], Path], None]
FIGURES: Mapping[str, Mapping[str, Draw]] = {
    "tune/1": {".svg": tune_figure},
    "reinforce/1": {".svg": tune_figure},
    "synthesis/1": {".svg": synthesis_figure},
    "steering/1": {".svg": steering_map},
    "coverage/1": {"-overlap.svg": overlap_figure, "-growth.svg": growth_figure},
}
"By the schema of a record, what follows its name in that of a figure."


def main() -> None:
    """Draw what was asked for, all by default, and say what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="*", type=Path, metavar="RECORD.json")
    records = parser.parse_args().records or sorted(
        Path(__file__).parent.rglob("results/**/*.json")
    )
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        for figure, draw in figures_of(path, record):
            draw(record, figure)
            print(figure, flush=True)


def figures_of(path: Path, record: Any) -> Iterator[tuple[Path, Draw]]:
    """The figures that stand beside a record, each with what draws it."""
    schema = record.get("schema") if isinstance(record, Mapping) else None
    for suffix, draw in FIGURES.get(str(schema), {}).items():
        figure = path.with_name(path.stem + suffix)
        if figure.exists():
            yield figure, draw


if __name__ == "__main__":
    main()
