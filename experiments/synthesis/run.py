"""Do texts that a model writes for features which a training set lacks make a classifier better?

    python -m experiments.synthesis.run --text PARAGRAPHS.jsonl --model MODEL --dictionaries DICTS
                                        --ask instruction --work DIR [--threads 1]

`PARAGRAPHS.jsonl` has a `text` and a `chapter` in each line: paragraphs of the Debian Reference
(GPL-2+). Four subjects of two chapters each are told apart; the training set knows the first
chapter of each, the target and the test have both. The texts stay in DIR; the record and its figure
go to `results/` beside this file.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

from circuits import scope
from circuits.cli.progress_bars import bars
from circuits.features.synthesis_record import SynthesisConfig
from circuits.scope.synthesise import FIGURES, RECORD
from hooked_qwen.threads import set_threads

RESULTS = Path(__file__).parent / "results"
SUBJECTS = {
    "network": ("ch05", "ch06"),
    "data": ("ch10", "ch11"),
    "system": ("ch03", "ch09"),
    "desktop": ("ch07", "ch08"),
}
"The chapter that the training set has, and the one that it lacks."
KNOWN = {"training": 10, "target": 4, "test": 16}
LACKING = {"training": 0, "target": 10, "test": 16}
"Paragraphs of each chapter."
SHORTEST, LONGEST = 100, 300
"Characters of a paragraph."


def main() -> None:
    """Deal the paragraphs, have texts written, keep what the README tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--ask", choices=("instruction", "continuation"), default="instruction")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    if given.threads:
        set_threads(given.threads)
    name = f"{given.ask}-{given.seed}" if given.seed else given.ask
    files, out = dealt(given.text, given.work), given.work / name
    with bars() as report:
        scope.synthesise(
            given.dictionaries,
            given.model,
            training=files["training"],
            target=files["target"],
            test=files["test"],
            style=given.ask,
            config=SynthesisConfig(
                features=given.features, tries=2, shown=2, seeds=given.seeds, seed=given.seed
            ),
            tokens=56,
            temperature=0.8,
            out=out,
            force=True,
            report=report,
        )
    RESULTS.mkdir(exist_ok=True)
    shutil.copyfile(out / RECORD, RESULTS / f"{name}.json")
    shutil.copyfile(out / FIGURES[0], RESULTS / f"{name}.svg")


def dealt(text: Path, work: Path) -> dict[str, Path]:
    """Training, target and test texts as files."""
    lines = [json.loads(line) for line in text.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    parts: dict[str, list[dict[str, str]]] = {name: [] for name in KNOWN}
    for label, chapters in SUBJECTS.items():
        for chapter, sizes in zip(chapters, (KNOWN, LACKING), strict=True):
            own = {line["text"] for line in lines if line["chapter"] == chapter}
            some = sorted(one for one in own if SHORTEST <= len(one) <= LONGEST)
            rng.shuffle(some)
            for name, size in sizes.items():
                parts[name] += [{"text": one, "label": label} for one in some[:size]]
                some = some[size:]
    work.mkdir(parents=True, exist_ok=True)
    files = {name: work / f"{name}.jsonl" for name in parts}
    for name, rows in parts.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files[name].write_text(content, encoding="utf-8")
    return files


if __name__ == "__main__":
    main()
