"""Language, topic and style of a real Qwen steered by features, beside what costs less.

    python -m experiments.steering.run --model MODEL.gguf --dictionaries DIR --reference-en FILE
                                       --reference-zh FILE --wikitext FILE --work DIR [--case CASE]
                                       [--form chat|text]

Example texts of each case are written to DIR, and the sweep with its page; what is small enough to
keep goes to `results/FORM` beside this file, and the table of the README is printed.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuits import scope
from circuits.cli.progress_bars import bars
from circuits.cli.rerun_tables import with_interval
from circuits.edits.continuations import GenerateConfig
from circuits.features.steering_arms import Form, SteerConfig
from circuits.graph import write_json
from circuits.render.pages.steer.steer_page import verdict
from circuits.runs.overwrite import MADE_FROM
from experiments.inputs import TwoLanguages, arguments, write_texts
from experiments.sasft.run import PROMPTS as MIXED
from hooked_qwen.placement import Placement
from saes.scope.steering import Unit
from saes.scope.steering_score import Goal

RESULTS = Path(__file__).parent / "results"
TEXTS, TOP = 24, 2
AT = ("resid_post.11", "resid_post.17")
"Dictionaries that features are chosen from."
LEAST_LETTERS = 60
"Characters of an example text."
NEUTRAL_TEXTS = (
    "From my experience,",
    "I once heard that",
    "People often say that",
    "The first thing to know is that",
    "It is important to",
    "In the next section",
    "For example,",
    "The following list",
)
ENGLISH_TEXTS = (
    "The weather today is",
    "My favourite book is",
    "Water boils at",
    "To open a file in Python",
    "The history of the city begins",
    "She walked into the room and",
    "A good teacher should",
    "The main reason for this is",
)
CHINESE_TEXTS = (
    "今天的天气",
    "我最喜欢的书是",
    "水在",
    "要在 Python 中打开一个文件",
    "这座城市的历史始于",
    "她走进房间，",
    "一个好老师应该",
    "主要原因是",
)
NEUTRAL = (
    "Tell me something interesting.",
    "What should I do this weekend?",
    "Write a short paragraph.",
    "Describe something that you know well.",
    "What is important in life?",
    "Give me a piece of advice.",
    "Write the first sentence of a story.",
    "What happened yesterday?",
    "Explain how something works.",
    "What do people talk about?",
    "Name a problem and its solution.",
    "What have you learned lately?",
    "Write a sentence with the word first.",
    "What can go wrong?",
    "Tell me about a place.",
    "What will change in ten years?",
)
ENGLISH = (
    "What is the weather like in spring?",
    "Recommend a good book.",
    "At what temperature does water boil?",
    "How do I open a file in Python?",
    "How did the city of Rome begin?",
    "Write the first sentence of a story.",
    "What makes a good teacher?",
    "Why is the sky blue?",
    "Name three kinds of fruit.",
    "How do I make tea?",
    "What does a doctor do?",
    "Describe a cat.",
    "Why do people travel?",
    "What is a computer?",
    "How can I sleep better?",
    "Tell me about the moon.",
)
CHINESE = (
    "春天的天气怎么样？",
    "推荐一本好书。",
    "水在多少度沸腾？",
    "怎样在 Python 中打开一个文件？",
    "罗马城是怎样建立的？",
    "写一个故事的第一句话。",
    "好老师是什么样的？",
    "天空为什么是蓝色的？",
    "说出三种水果。",
    "怎样泡茶？",
    "医生做什么工作？",
    "描述一只猫。",
    "人们为什么旅行？",
    "什么是计算机？",
    "怎样才能睡得更好？",
    "介绍一下月亮。",
)
NETWORK = (
    r"(?i)\b(network|internet|IP|address|DNS|host|router|ethernet|interface|wireless|Wi-?Fi|"
    r"TCP|server|port|packet|gateway)"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to steer."""

    prompts: Mapping[Form, Sequence[str]]
    score: str
    instructions: Mapping[Form, str]
    strengths: Mapping[Form, tuple[float, ...]]
    units: Mapping[Form, Unit] = field(default_factory=dict)
    "of strengths, where it is not a feature's own maximum"
    goal: Goal = "more"
    do: str = "add"
    sources: tuple[str, str] = ("", "")
    "of the positive and the negative texts, in `sets`"
    temperature: float = 0.0


TOKENS: Mapping[Form, int] = {"text": 16, "chat": 24}
"Written after each prompt."
MORE = (0.5, 1.0, 2.0)
ON: Mapping[Form, str] = {"text": "请用中文续写：{prompt}", "chat": "{prompt} 请用中文回答。"}
OFF: Mapping[Form, str] = {
    "text": "Continue in English: {prompt}",
    "chat": "{prompt} Answer in English.",
}
CASES: Mapping[str, Case] = {
    "language_on": Case(
        prompts={"text": ENGLISH_TEXTS, "chat": ENGLISH},
        score="script:cjk",
        instructions=ON,
        strengths={"text": MORE, "chat": (1.0, 2.0, 4.0, 8.0)},
        sources=("zh", "en"),
    ),
    "language_off": Case(
        prompts={"text": CHINESE_TEXTS, "chat": CHINESE},
        score="script:cjk",
        instructions=OFF,
        goal="less",
        do="clamp",
        strengths={"text": (0.0,), "chat": (0.0,)},
        sources=("zh", "en"),
    ),
    "language_away": Case(
        prompts={"text": CHINESE_TEXTS, "chat": CHINESE},
        score="script:cjk",
        instructions=OFF,
        goal="less",
        strengths={"text": tuple(-s for s in MORE), "chat": (-2.0, -8.0)},
        sources=("zh", "en"),
    ),
    "switching_off": Case(
        prompts={"text": MIXED},
        score="behaviour:cjk",
        instructions={"text": OFF["text"]},
        goal="less",
        do="clamp",
        strengths={"text": (0.0,)},
        sources=("zh", "en"),
        temperature=1.0,
    ),
    "switching_away": Case(
        prompts={"text": MIXED},
        score="behaviour:cjk",
        instructions={"text": OFF["text"]},
        goal="less",
        strengths={"text": tuple(-s for s in MORE)},
        sources=("zh", "en"),
        temperature=1.0,
    ),
    "topic": Case(
        prompts={"text": NEUTRAL_TEXTS, "chat": NEUTRAL},
        score=f"regex:{NETWORK}",
        instructions={
            "text": "Write about computer networks.\n{prompt}",
            "chat": "{prompt} Write about computer networks.",
        },
        strengths={"text": (0.5, 0.75, 1.0, 1.5, 2.0, 3.0), "chat": (0.5, 2.0, 8.0)},
        units={"chat": "token"},
        sources=("network", "other"),
    ),
    "style": Case(
        prompts={"text": NEUTRAL_TEXTS, "chat": NEUTRAL},
        score="probe",
        instructions={
            "text": "Write like an encyclopedia article.\n{prompt}",
            "chat": "{prompt} Write like an encyclopedia article.",
        },
        strengths={"text": MORE, "chat": (1.0, 8.0)},
        sources=("encyclopedia", "en"),
    ),
}


@dataclass(frozen=True)
class Given(TwoLanguages):
    """And WikiText, and the form of prompts."""

    wikitext: Path
    form: Form

    @property
    def results(self) -> Path:
        """Where what is kept goes."""
        return RESULTS / self.form


def main() -> None:
    """Parse the arguments and run every case."""
    parser = arguments(__doc__, "reference-en", "reference-zh", "wikitext")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--form", default="chat", choices=TOKENS)
    parser.add_argument("--case", action="append", choices=CASES)
    chosen = vars(parser.parse_args())
    of_form = [name for name, case in CASES.items() if chosen["form"] in case.prompts]
    names = chosen.pop("case") or of_form
    given = Given(**chosen)
    given.work.mkdir(parents=True, exist_ok=True)
    given.results.mkdir(parents=True, exist_ok=True)
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
        write_texts(texts, paths[name])
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
        strengths=case.strengths[given.form],
        do=case.do,
        unit=case.units.get(given.form, "max"),
        goal=case.goal,
        form=given.form,
        instruction=case.instructions[given.form],
        generation=GenerateConfig(tokens=TOKENS[given.form], temperature=case.temperature),
    )
    with bars() as report:
        record = scope.steer(
            given.dictionaries,
            given.model,
            score=case.score,
            prompt=case.prompts[given.form],
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
    write_json(kept, given.results / f"{name}.json")
    shutil.copyfile(out.with_suffix(".svg"), given.results / f"{name}.svg")
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
