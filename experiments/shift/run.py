"""SHIFT beside its baselines: does cutting features free a classifier of a signal?

    python -m experiments.shift.run [--model MODEL --dictionaries DIR] [--data NAME ...]
                                    [--texts N] [--work DIR]

Records go to `results/MODEL-DATA.json` beside this file, with the tables of the README.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from circuits.cli.progress_bars import bars
from circuits.runs.shift_run import shift_run
from circuits.shift.shift import ShiftConfig
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import Placement

RESULTS = Path(__file__).parent / "results"
NUMBERS = ("label", "spurious", "worst")


def main() -> None:
    """Parse the arguments, shift a classifier of each of the texts, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--dictionaries", default=BUNDLED)
    parser.add_argument("--data", action="append")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--circuit-texts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32, help="texts of the circuit at once")
    parser.add_argument("--estimator", default="ig")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--work", type=Path, help="run folders are kept there")
    chosen = parser.parse_args()
    config = ShiftConfig(
        estimator=chosen.estimator,
        circuit_texts=chosen.circuit_texts,
        nodes=100,
        batch_size=chosen.batch_size,
    )
    RESULTS.mkdir(exist_ok=True)
    with TemporaryDirectory() as temporary, bars() as report:
        for data in chosen.data or ["biographies", "registers"]:
            folder = (chosen.work or Path(temporary)) / data
            record = shift_run(
                data,
                folder,
                config=config,
                model=chosen.model,
                dictionaries=chosen.dictionaries,
                texts=chosen.texts,
                placement=Placement(device="cpu", dtype=chosen.dtype),
                force=True,
                report=report,
            )
            path = RESULTS / f"{Path(chosen.model).stem}-{data}.json"
            path.write_text(json.dumps(without_paths(record), indent=1) + "\n", encoding="utf-8")
            print(table(record), end="\n\n")


def without_paths(record: dict[str, Any]) -> dict[str, Any]:
    """The record without where things lay on this machine."""
    own = {k: v for k, v in record["made_from"].items() if k != "model"}
    return {**record, "made_from": own, "dictionaries": record["dictionaries"].split(" at ")[0]}


def table(record: dict[str, Any]) -> str:
    """A line for each method."""
    label, spurious = record["label"][0], record["spurious"][0]
    lines = [f"| method | {label} | {spurious} | worst group |", "|---|---|---|---|"]
    for name, method in record["methods"].items():
        cells = [_cell(method[number]) for number in NUMBERS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"{score['value']:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
