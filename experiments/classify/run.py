"""Chapters of a manual told apart by features, within a language and across.

    python -m experiments.classify.run --model MODEL.gguf --dictionaries DIR --reference-en FILE
                                       --reference-zh FILE --work DIR

What the model reads is kept in DIR, so that a second run needs no model. Results go to `results/`
beside this file, and the tables of the README are printed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.cli.progress_bars import bars
from circuits.features.judged_methods import ReadTexts, learned, read_texts, shares, tables
from circuits.graph import rounded, write_json
from circuits.opening import load_model
from circuits.render.charts.methods_figure import methods_figure
from experiments.classify.pairs import Pair, pairs_of
from experiments.inputs import TwoLanguages, arguments
from hooked_qwen.placement import Placement
from hooked_qwen.sites import Site
from saes.scope.activity import Activity
from saes.scope.classify import AcrossChoice, TextSplit, by_features, judged_on
from saes.scope.separation import Figures
from saes.suite import load_suite

RESULTS = Path(__file__).parent / "results"
LANGUAGES = ("en", "zh")
SPLITS = 5
MOST = 84
"Pairs of a chapter, spread over it."
RUN = 3
"Neighbouring pairs that stay together, to learn from or to be judged on."
HELD_OUT = 0.3
"Of the pairs to learn from."
READING = "reading.pt"
MEASURES = ("f1", "auroc", "tpr")
FIGURE = ("auroc", "tpr")


@dataclass(frozen=True)
class ChapterTask:
    """Chapters to be told apart."""

    positive: str
    negative: tuple[str, ...]
    said: str


TASKS: Mapping[str, ChapterTask] = {
    "network": ChapterTask("ch05", ("ch01", "ch09", "ch10"), "network setup against all else"),
    "tutorial": ChapterTask("ch01", ("ch09", "ch10"), "tutorial against system tips and data"),
    "data": ChapterTask("ch10", ("ch09",), "data management against system tips"),
}
CHAPTERS = ("ch01", "ch05", "ch09", "ch10")
WAYS: tuple[AcrossChoice, ...] = ("one", "several", "chosen")


@dataclass(frozen=True)
class Given(TwoLanguages):
    """And how many pairs, and how often they are split."""

    most: int
    splits: int


def main() -> None:
    """Parse the arguments, read the texts, judge every task."""
    parser = arguments(__doc__, "reference-en", "reference-zh")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--splits", type=int, default=SPLITS)
    given = Given(**vars(parser.parse_args()))
    given.work.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    pairs = chosen_pairs(given)
    read = reading(given, pairs)
    for name in TASKS:
        for learned_in in LANGUAGES:
            record = judged(read, pairs, name, learned_in, given.splits)
            write_json(record, RESULTS / f"{name}_{learned_in}.json")
            methods_figure(record, RESULTS / f"{name}_{learned_in}.svg", measures=FIGURE)
            print(f"{name}, learned in {learned_in}\n{table(record)}\n", flush=True)


def chosen_pairs(given: Given) -> list[Pair]:
    """As many of each chapter as are read, from all over it."""
    found = pairs_of(given.reference_en, given.reference_zh, CHAPTERS)
    kept = []
    for chapter in CHAPTERS:
        some = [pair for pair in found if pair.chapter == chapter]
        n = min(given.most, len(some))
        kept += [some[i * len(some) // n] for i in range(n)]
    return kept


def reading(given: Given, pairs: Sequence[Pair]) -> ReadTexts:
    """What the model reads of all English texts, then of all Chinese ones; read once."""
    texts = [pair.en for pair in pairs] + [pair.zh for pair in pairs]
    path = given.work / READING
    if path.exists() and (kept := torch.load(path))["texts"] == texts:
        activity, control = (Activity(**kept[name]) for name in ("activity", "control"))
        means = {Site.parse(name): value for name, value in kept["means"].items()}
        return ReadTexts(texts=texts, activity=activity, control=control, means=means)
    model = load_model(given.model, placement=Placement(dtype=given.dtype))
    with bars() as report:
        read = read_texts(model, load_suite(given.dictionaries), texts, report=report)
    kept = {
        "texts": texts,
        "activity": vars(read.activity),
        "control": vars(read.control),
        "means": {str(site): value for site, value in read.means.items()},
    }
    torch.save(kept, path)
    return read


def judged(
    read: ReadTexts, pairs: Sequence[Pair], name: str, learned_in: str, splits: int
) -> dict[str, Any]:
    """A task learned in one language and judged in both, on pairs that were not learned from."""
    task, other = TASKS[name], LANGUAGES[1 - LANGUAGES.index(learned_in)]
    wanted = torch.tensor([pair.chapter == task.positive for pair in pairs]).repeat(2)
    found, ways = [], []
    for seed in range(splits):
        parts, judged_in = split(pairs, task, learned_in, seed)
        # Splits draw anew which few texts are learned from.
        by_all = tables(read, wanted, parts, seed=seed, draws=1)
        found.append([by_all.judged_on(wanted, judged_in[at]) for at in (learned_in, other)])
        ways.append(
            {
                way: [
                    _figures(judged_on([method], wanted, judged_in[at]))
                    for at in (learned_in, other)
                ]
                for way in WAYS
                for method in [by_features(read.activity, wanted, parts, across=way)[0]]
            }
        )
    most = learned(wanted, parts)
    return {
        **_over_splits([own for own, _ in found]),
        "tests": {other: _over_splits([there for _, there in found])},
        "by_share": shares(most),
        "across": {
            way: {
                at: _over_splits([one[way][place] for one in ways])
                for place, at in enumerate((learned_in, other))
            }
            for way in WAYS
        },
        "texts": {
            "train": int(parts.train.sum()),
            "held_out": int(parts.held_out.sum()),
            "test": int(parts.test.sum()),
        },
        "positives": int((parts.test & wanted).sum()),
        "splits": splits,
    }


def split(
    pairs: Sequence[Pair], task: ChapterTask, learned_in: str, seed: int
) -> tuple[TextSplit, dict[str, Bool[Tensor, " texts"]]]:
    """Half of each chapter's runs of pairs to learn from in one language, half to judge in both."""
    generator = torch.Generator().manual_seed(seed)
    roles = torch.zeros(3, len(pairs), dtype=torch.bool)
    for chapter in (task.positive, *task.negative):
        members = torch.tensor([i for i, pair in enumerate(pairs) if pair.chapter == chapter])
        runs = members.split(RUN)
        order = torch.randperm(len(runs), generator=generator).tolist()
        to_learn = torch.cat([runs[i] for i in order[: len(runs) // 2]])
        to_learn = to_learn[torch.randperm(len(to_learn), generator=generator)]
        held = round(HELD_OUT * len(to_learn))
        roles[0, to_learn[held:]] = True
        roles[1, to_learn[:held]] = True
        roles[2, torch.cat([runs[i] for i in order[len(runs) // 2 :]])] = True
    nothing = torch.zeros_like(roles)
    sides = {
        name: torch.cat([roles, nothing] if name == "en" else [nothing, roles], 1)
        for name in LANGUAGES
    }
    return TextSplit(*sides[learned_in]), {name: side[2] for name, side in sides.items()}


def _figures(figures: Figures) -> dict[str, Any]:
    return {"f1": figures.f1, "auroc": figures.auroc, "tpr": figures.tpr}


def _over_splits(records: Sequence[Any]) -> Any:
    """The mean of every number, and of each measure the least and the most of the splits."""
    if isinstance(records[0], list):
        return [_over_splits(some) for some in zip(*records, strict=True)]
    found: dict[str, Any] = {}
    for key, value in records[0].items():
        some = [record[key] for record in records]
        if key in MEASURES:
            found[key] = rounded(sum(some) / len(some))
            found[f"{key}_range"] = [rounded(min(some)), rounded(max(some))]
        elif key in ("methods", "by_texts", "by_features") or key.isdigit():
            found[key] = _over_splits(some)
        elif key == "name":
            found[key] = value
        elif key == "choice":
            found[key] = some
    return found


def table(record: Mapping[str, Any]) -> str:
    """AUROC, F1 and TPR of every method in both languages, then of both ways to choose features."""
    (other,) = record["tests"]
    rows = ["| | AUROC | F1 | TPR at 1 % | AUROC, other | F1, other | TPR at 1 %, other |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    pairs = [
        (own["name"], own, there)
        for own, there in zip(record["methods"], record["tests"][other]["methods"], strict=True)
    ]
    for way, by_language in record["across"].items():
        own, there = by_language.values()
        pairs.append((f"features across {way}", own, there))
    for name, own, there in pairs:
        cells = [_cell(one, key) for one in (own, there) for key in ("auroc", "f1", "tpr")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    for n, some in record["by_texts"].items():
        there = record["tests"][other]["by_texts"][n]
        said = (f"{m['name']} {m['auroc']:.2f}/{o['auroc']:.2f}"
                for m, o in zip(some, there, strict=True))  # fmt: skip
        rows.append(f"from {n}: {', '.join(said)}")
    return "\n".join(rows)


def _cell(one: Mapping[str, Any], key: str) -> str:
    low, high = one[f"{key}_range"]
    return f"{one[key]:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
