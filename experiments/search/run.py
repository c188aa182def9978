"""Features of a real Qwen that tell Chinese from English, by activity and by what they do.

    python -m experiments.search.run --model MODEL.gguf --dictionaries DIR --reference-en FILE
                                     --reference-zh FILE --work DIR [--search NAME]

Paragraphs of each language, the records and their pages are written to DIR, the records to
`results/` beside this file as well, and the tables of the README are printed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits import scope
from circuits.cli.progress_bars import bars
from circuits.graph import write_json
from experiments.inputs import TwoLanguages, arguments, write_texts
from hooked_qwen.placement import Placement

RESULTS = Path(__file__).parent / "results"
TEXTS, TOP = 14, 12
LETTERS = {"en": (90, 170), "zh": (45, 85)}
"Of a paragraph: about as many tokens in both languages."
SEARCHES: Mapping[str, str | None] = {
    "activity": None,
    "loss": "next-token",
    "token": "token:的",
}
"The metric of each; none: by the share of texts in which a feature is on."


def main() -> None:
    """Parse the arguments and run every search."""
    parser = arguments(__doc__, "reference-en", "reference-zh")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--search", action="append", choices=SEARCHES)
    chosen = vars(parser.parse_args())
    names = chosen.pop("search") or list(SEARCHES)
    given = TwoLanguages(**chosen)
    given.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    for language, source in (("en", given.reference_en), ("zh", given.reference_zh)):
        write_texts(_paragraphs(source, *LETTERS[language]), given.work / f"{language}.jsonl")
    for name in names:
        print(f"{name}\n{table(searched(given, name))}\n")


def _paragraphs(source: Path, shortest: int, longest: int) -> list[str]:
    """As many as are read, from all over."""
    rows = map(json.loads, source.read_text(encoding="utf-8").splitlines())
    fit = [row["text"] for row in rows if shortest <= len(row["text"]) <= longest]
    return fit[:: len(fit) // TEXTS][:TEXTS]


def searched(given: TwoLanguages, name: str) -> dict[str, Any]:
    """One search, Chinese texts the positive ones, and its page in the work folder."""
    with bars() as report:
        record = scope.search(
            given.dictionaries,
            given.model,
            positive=[str(given.work / "zh.jsonl")],
            negative=[str(given.work / "en.jsonl")],
            metric=SEARCHES[name],
            top=TOP,
            out=given.work / f"{name}.json",
            page=given.work / f"{name}.html",
            force=True,
            placement=Placement(dtype=given.dtype),
            report=report,
        )
    write_json(record, RESULTS / f"{name}.json")
    return record


def table(record: Mapping[str, Any]) -> str:
    """What was found as a table of Markdown, and what chance gives below it."""
    return (_by_activity if record["how"] == "contrast" else _by_effect)(record)


def _by_activity(record: Mapping[str, Any]) -> str:
    lines = [
        "| feature | Chinese | English | difference (95 %) | by chance | label |",
        "|---" * 6 + "|",
    ]
    for one in record["found"]:
        low, high = one["interval"]
        lines.append(
            f"| {one['feature']} | {one['on_positive']:.2f} | {one['on_negative']:.2f} | "
            f"{one['difference']:+.2f} ({low:+.2f} to {high:+.2f}) | {one['by_chance']:.2g} | "
            f"{one['label']} |"
        )
    return "\n".join([*lines, "", f"chance {record['chance']:.2f}, of {record['features_on']}"])


def _by_effect(record: Mapping[str, Any]) -> str:
    lines = [
        "| feature | estimate | exact (95 %) | Chinese | English | by chance | texts | label |",
        "|---" * 8 + "|",
    ]
    for one in record["found"]:
        low, high = one["interval"]
        lines.append(
            f"| {one['feature']} | {one['estimate']:+.3f} | {one['exact']:+.3f} ({low:+.3f} to "
            f"{high:+.3f}) | {one['positive']:+.3f} | {one['negative']:+.3f} | "
            f"{one['by_chance']:.2g} | {one['texts_on']} | {one['label']} |"
        )
    random = record["random"]
    said = (
        f"mean size {random['mean_size_of_found']:.3f}, of {len(random['features'])} random ones "
        f"{random['mean_size']:.4f}; {json.dumps(record['agreement'])}; shuffled labels reach "
        f"{record['chance']:.3f}; metric {json.dumps(record['metric_on_clean'])}"
    )
    return "\n".join([*lines, "", said])


if __name__ == "__main__":
    main()
