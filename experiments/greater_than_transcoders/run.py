"""Greater-than by transcoders: how many features keep how much of the probability difference?

    python -m experiments.greater_than_transcoders.run --work DIR [--dictionaries DIR ...]
               [--name NAME ...] [--model MODEL.gguf] [--pairs N] [--layers L] [--estimator E]

`circuits sufficiency` on greater-than: the probability of later years less that of earlier ones,
the MLPs replaced by their transcoders, all but the strongest features at zero and errors left out,
as Dunefsky et al. 2024, arXiv:2406.11944, did; and with errors held. Of the bundled model the
answers are all later years of the century, of another what `circuits prompts make` gives. Results
and figures go to `results/`.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuits.cli.progress_bars import bars
from circuits.discovery.config import DiscoverConfig
from circuits.graph import write_json
from circuits.prompt_files import Prompt, read_prompts, write_prompts
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import MADE_FROM
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.sufficiency_run import FIGURES, RECORD, sufficiency_run
from circuits.verification.sufficiency import ERRORS, SufficiencyConfig
from hooked_qwen.load import BUNDLED

RESULTS = Path(__file__).parent / "results"
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def main() -> None:
    """Make the prompts, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--dictionaries", nargs="+", default=[BUNDLED])
    parser.add_argument("--name", nargs="+", default=[BUNDLED], help="of the results, one a suite")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--layers", default="all")
    parser.add_argument("--estimator", default="ig")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    prompts = chosen.work / f"{Path(chosen.model).stem}.jsonl"
    if not prompts.exists():
        make_prompts(
            "greater_than", chosen.pairs, split="test", seed=0, model=chosen.model, out=prompts
        )
        if chosen.model == BUNDLED:
            write_prompts([_all_years(prompt) for prompt in read_prompts(prompts)], prompts)
    for name, dictionaries in zip(chosen.name, chosen.dictionaries, strict=True):
        for errors in ERRORS:
            record = _measured(chosen, prompts, dictionaries, f"{name}-errors-{errors}", errors)
            print(f"{name}, errors {errors}\n{table(record, chosen.sizes)}\n")


def _all_years(prompt: Prompt) -> Prompt:
    """With every later year of the century right, and every earlier one wrong."""
    start = next(int(word) for word in prompt.clean.split() if word.isdecimal())
    century = start // 100 * 100
    later, earlier = range(start + 1, century + 100), range(century, start)
    return replace(
        prompt, answer=tuple(f" {y}" for y in later), wrong=tuple(f" {y}" for y in earlier)
    )


def _measured(
    chosen: argparse.Namespace, prompts: Path, dictionaries: str, name: str, errors: str
) -> dict[str, Any]:
    """One record, kept with its figure under a name."""
    config = DiscoverConfig(
        metric="probability-difference",
        estimator=chosen.estimator,
        positions="sum",
        reference="zero",
    )
    kept = SufficiencyConfig(errors=errors, sizes=tuple(chosen.sizes), draws=chosen.draws)
    inputs = Inputs.resolved(chosen.model, dictionaries, prompts, "transcoder")
    out = chosen.work / name
    if not (out / RECORD).exists():
        with bars() as report:
            sufficiency_run(
                inputs, out, config=config, kept=kept, layers=chosen.layers, report=report
            )
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    told = {key: value for key, value in record.items() if key != MADE_FROM}
    write_json(told, RESULTS / f"{name}.json")
    if errors == "out":
        svg = next(figure for figure in FIGURES if figure.endswith("svg"))
        shutil.copyfile(out / svg, RESULTS / f"{name}.svg")
    return record


def table(record: dict[str, Any], shown: Sequence[int]) -> str:
    """The score by the number of kept features, as the README shows it."""
    columns = [i for i, size in enumerate(record["sizes"]) if size in shown]
    sizes = " | ".join(str(record["sizes"][i]) for i in columns)
    lines = [f"| kept | {sizes} | all |", "|---|" + "---|" * (len(columns) + 1)]
    for name, row in record["rows"].items():
        cells = " | ".join(f"{row['score'][i]:.3f}" for i in [*columns, -1])
        lines.append(f"| {name} | {cells} |")
    ends = ", ".join(
        f"{end} {record[end]['score']:.3f}" for end in ("model", "replaced", "nothing")
    )
    return "\n".join([*lines, "", ends])


if __name__ == "__main__":
    main()
