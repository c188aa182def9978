"""Language, topic and style of a real Qwen steered by features, beside what costs less.

    python -m experiments.steering.run --model MODEL.gguf --dictionaries DIR --reference-en FILE
                                       --reference-zh FILE --wikitext FILE --work DIR [--case CASE]

Example texts of each case are written to DIR, and the sweep with its page; what is small enough to
keep goes to `results/` beside this file, and the table of the README is printed.
"""

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits import scope
from circuits.cli.progress_bars import bars
from circuits.cli.rerun_tables import with_interval
from circuits.edits.continuations import GenerateConfig
from circuits.features.steering_arms import SteerConfig
from circuits.graph import write_json
from circuits.render.steer_page import verdict
from circuits.runs.overwrite import MADE_FROM
from hooked_qwen.placement import Placement
from saes.scope.steering import Do
from saes.scope.steering_score import Goal

RESULTS = Path(__file__).parent / "results"
TEXTS, NEW_TOKENS, TOP = 24, 16, 2
STRENGTHS = (0.5, 1.0, 2.0)
AT = ("resid_post.11", "resid_post.17")
"Dictionaries that features are chosen from."
LEAST_LETTERS = 60
"Characters of an example text."
NEUTRAL = (
    "From my experience,",
    "I once heard that",
    "People often say that",
    "The first thing to know is that",
    "It is important to",
    "In the next section",
    "For example,",
    "The following list",
)
ENGLISH = (
    "The weather today is",
    "My favourite book is",
    "Water boils at",
    "To open a file in Python",
    "The history of the city begins",
    "She walked into the room and",
    "A good teacher should",
    "The main reason for this is",
)
CHINESE = (
    "今天的天气",
    "我最喜欢的书是",
    "水在",
    "要在 Python 中打开一个文件",
    "这座城市的历史始于",
    "她走进房间，",
    "一个好老师应该",
    "主要原因是",
)
NETWORK = (
    r"(?i)\b(network|internet|IP|address|DNS|host|router|ethernet|interface|wireless|Wi-?Fi|"
    r"TCP|server|port|packet|gateway)"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to steer."""

    prompts: Sequence[str]
    score: str
    instruction: str
    goal: Goal = "more"
    do: Do = "add"
    strengths: tuple[float, ...] = STRENGTHS
    sources: tuple[str, str] = ("", "")
    "of the positive and the negative texts, in `sets`"


CASES: Mapping[str, Case] = {
    "language_on": Case(
        prompts=ENGLISH,
        score="script:cjk",
        instruction="请用中文续写：{prompt}",
        sources=("zh", "en"),
    ),
    "language_off": Case(
        prompts=CHINESE,
        score="script:cjk",
        instruction="Continue in English: {prompt}",
        goal="less",
        do="clamp",
        strengths=(0.0,),
        sources=("zh", "en"),
    ),
    "language_away": Case(
        prompts=CHINESE,
        score="script:cjk",
        instruction="Continue in English: {prompt}",
        goal="less",
        strengths=(-0.5, -1.0, -2.0),
        sources=("zh", "en"),
    ),
    "topic": Case(
        prompts=NEUTRAL,
        score=f"regex:{NETWORK}",
        instruction="Write about computer networks.\n{prompt}",
        sources=("network", "other"),
    ),
    "style": Case(
        prompts=NEUTRAL,
        score="probe",
        instruction="Write like an encyclopedia article.\n{prompt}",
        sources=("encyclopedia", "en"),
    ),
}


@dataclass(frozen=True)
class Given:
    """What the command line gave."""

    model: str
    dictionaries: str
    reference_en: Path
    reference_zh: Path
    wikitext: Path
    work: Path
    dtype: str


def main() -> None:
    """Parse the arguments and run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "dictionaries"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("reference-en", "reference-zh", "wikitext", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--case", action="append", choices=CASES)
    chosen = vars(parser.parse_args())
    names = chosen.pop("case") or list(CASES)
    given = Given(**chosen)
    given.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    sets = written_sets(given)
    for name in names:
        print(f"{name}\n{table(steered(given, name, sets))}\n")


def written_sets(given: Given) -> dict[str, Path]:
    """The example texts, a file a kind: paragraphs by language, chapter and source."""
    english, chinese = (_paragraphs(p) for p in (given.reference_en, given.reference_zh))
    network = [text for chapter, text in english if chapter == "ch05"]
    kinds = {
        "en": _spread([text for chapter, text in english if chapter != "ch05"]),
        "zh": _spread([text for _, text in chinese]),
        "network": network[:TEXTS],
        "other": _spread([text for chapter, text in english if chapter != "ch05"]),
        "encyclopedia": _spread(_encyclopedia(given.wikitext)),
    }
    paths = {name: given.work / f"{name}.jsonl" for name in kinds}
    for name, texts in kinds.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        paths[name].write_text("".join(lines), encoding="utf-8")
    return paths


def _paragraphs(path: Path) -> list[tuple[str, str]]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["chapter"], row["text"]) for row in rows if len(row["text"]) >= LEAST_LETTERS]


def _encyclopedia(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        re.sub(r"\s+", " ", line.strip())[:400]
        for line in lines
        if len(line) >= LEAST_LETTERS and not line.strip().startswith("=")
    ]


def _spread(texts: Sequence[str]) -> list[str]:
    """As many as are read, from all over."""
    return list(texts[:: max(1, len(texts) // TEXTS)][:TEXTS])


def steered(given: Given, name: str, sets: Mapping[str, Path]) -> dict[str, Any]:
    """One case, in the work folder and without this machine's paths among the results."""
    case, out = CASES[name], given.work / f"{name}.json"
    positive, negative = (str(sets[source]) for source in case.sources)
    config = SteerConfig(
        strengths=case.strengths,
        do=case.do,
        goal=case.goal,
        instruction=case.instruction,
        generation=GenerateConfig(tokens=NEW_TOKENS),
    )
    with bars() as report:
        record = scope.steer(
            given.dictionaries,
            given.model,
            score=case.score,
            prompt=case.prompts,
            positive=[positive],
            negative=[negative],
            top=TOP,
            at=AT,
            texts=TEXTS,
            config=config,
            out=out,
            force=True,
            placement=Placement(dtype=given.dtype),
            report=report,
        )
    kept = {key: value for key, value in record.items() if key != MADE_FROM}
    write_json(kept, RESULTS / f"{name}.json")
    shutil.copyfile(out.with_suffix(".svg"), RESULTS / f"{name}.svg")
    return record


def table(record: Mapping[str, Any]) -> str:
    """The methods of one case as a table of Markdown, what does best first."""
    lines = [
        verdict(record),
        "",
        "| | both | concept | fluency | chosen |",
        "|---|---|---|---|---|",
    ]
    for one in record["methods"]:
        numbers = [
            with_interval(one[key], "{:.2f}".format) for key in ("score", "concept", "fluency")
        ]
        chosen = "; ".join(f"{c['direction']} {c['strength']:g}" for c in one["chosen"])
        lines.append(f"| {one['name']} | {' | '.join(numbers)} | {chosen} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
