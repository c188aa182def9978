"""Which features make a real Qwen agree a verb with its subject past another noun?

    python -m experiments.real_qwen_agreement.run --model MODEL.gguf --text TEXT --work DIR

Dictionaries go to DIR/dictionaries and are not trained again when they are there; the run goes to
DIR/run; what is small enough to keep goes to `results/` beside this file.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.cli.progress_bars import bars
from circuits.discovery.config import DiscoverConfig
from circuits.graph import Node, ordered, write_json
from circuits.prompts import Prompt, write_prompts
from circuits.runs.ablate_run import ablate_run
from circuits.runs.discover_run import discover_run
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Inputs
from circuits.runs.render_run import render_run
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import Corpus, texts_of
from hooked_qwen.tokens import encode
from saes.formats import ours
from saes.sae import sae
from saes.training.config import TrainConfig
from saes.training.train import train
from transcoders.transcoder import transcoder

RESULTS = Path(__file__).parent / "results"
LAYERS = (2, 6, 10, 14, 18, 22)
SPECS = [sae(Site("resid_post", layer), k=32) for layer in LAYERS] + [
    transcoder(layer, k=32) for layer in LAYERS
]
TRAINING = TrainConfig(width=4096, tokens=880_000, learning_rate=1e-3, dead_after=50_000)
STREAM = StreamConfig(reuse=4, buffer_size=40_960)
PAIRS = 32
TOP = 20
NOUNS = (
    "key keys, door doors, book books, table tables, picture pictures, letter letters, "
    "car cars, house houses, teacher teachers, student students, author authors, "
    "building buildings, player players, window windows, box boxes, bird birds, "
    "farmer farmers, doctor doctors, road roads, boat boats, machine machines, "
    "friend friends, king kings, river rivers, garden gardens, officer officers"
)
PREPOSITIONS = ("near", "behind", "beside", "by")


def main() -> None:
    """Parse the paths and run every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--work", required=True, type=Path)
    arguments = parser.parse_args()
    work, texts = arguments.work, texts_of(arguments.text)
    model = load(arguments.model)
    train_dictionaries(model, texts, work / "dictionaries")
    prompts = work / "prompts.jsonl"
    write_prompts(agreement_pairs(model, PAIRS), prompts)
    inputs = Inputs.resolved(arguments.model, str(work / "dictionaries"), prompts, "transcoder")
    command = ["python", "-m", "experiments.real_qwen_agreement.run", *sys.argv[1:]]
    run = work / "run"
    with bars() as report:
        discover_run(
            inputs,
            run,
            config=DiscoverConfig(steps=5),
            text=arguments.text,
            force=True,
            command=command,
            report=report,
        )
        verify_run(run, config=VerifyConfig(), report=report)
        ablate_run(run, top=TOP, to="mean", label=f"top-{TOP}-mean", report=report)
        render_run(run, ["html", "svg", "pdf"], nodes=20)
    keep_results(work)


def train_dictionaries(model: TransformerBridge, texts: Corpus, out: Path) -> None:
    """Twelve dictionaries from one pass over 220,000 tokens, each token seen four times."""
    if not out.exists():
        with bars() as report:
            train(model, SPECS, texts, out, config=TRAINING, stream=STREAM, report=report)


def agreement_pairs(model: TransformerBridge, n: int) -> list[Prompt]:
    """'The key near the cabinets' against 'The keys near the cabinets', both ways round.

    Only nouns that are one token in both numbers, so that positions line up. Half the subjects
    are singular; the noun between is singular or plural as often.
    """
    nouns = [tuple(pair.split()) for pair in NOUNS.split(", ")]
    nouns = [p for p in nouns if all(len(encode(model.tokenizer, f" {w}")) == 1 for w in p)]
    generator = random.Random(0)
    choices = list(itertools.permutations(nouns, 2))
    generator.shuffle(choices)
    return [
        _pair(subject, other, i, generator.choice(PREPOSITIONS))
        for i, (subject, other) in enumerate(choices[:n])
    ]


def _pair(subject: tuple[str, ...], other: tuple[str, ...], i: int, preposition: str) -> Prompt:
    number, distractor = i % 2, i // 2 % 2
    clean, patch = (
        f"The {subject[which]} {preposition} the {other[distractor]}"
        for which in (number, 1 - number)
    )
    answers = (" is", " are")
    names = ("singular", "plural")
    return Prompt(
        clean=clean,
        patch=patch,
        answer=(answers[number],),
        wrong=(answers[1 - number],),
        case=f"{names[number]} subject, {names[distractor]} between",
        where=f"pair {i}",
    )


def keep_results(work: Path) -> None:
    """Copy what is small into `results/`: quality, verification, ablations, features, figures."""
    RESULTS.mkdir(exist_ok=True)
    run = read_run(work / "run")
    write_json(dict(_quality(work / "dictionaries")), RESULTS / "quality.json")
    write_json(_strongest(run.folder, list(ordered(run.graph))[:41]), RESULTS / "features.json")
    verification = json.loads((run.folder / "verification.json").read_text())
    write_json(verification, RESULTS / "verification.json")
    for result in sorted(run.folder.glob("ablations/*/result.json")):
        shutil.copy(result, RESULTS / f"ablation-{result.parent.name}.json")
    shutil.copy(work / "prompts.jsonl", RESULTS / "prompts.jsonl")
    shutil.copy(run.folder / "graph.json", RESULTS / "graph.json")
    for name in ("graph.svg", "verification.svg"):
        shutil.copy(run.folder / name, RESULTS / name)


def _quality(folder: Path) -> Iterator[tuple[str, Any]]:
    for one in ours.suite_folders(folder):
        yield one.name, ours.read_record(one)["metrics"]


def _strongest(folder: Path, nodes: list[Node]) -> list[dict[str, Any]]:
    """The strongest nodes with what their cards say, for naming them by eye."""
    graph = read_run(folder).graph
    cards = json.loads((folder / "cards.json").read_text(encoding="utf-8"))
    rows = []
    for node in nodes:
        data = graph.nodes[node]
        card = cards.get(f"{node.site}/{node.feature}", {})
        rows.append(
            {
                "id": str(node),
                "label": data["label"],
                "effect": data["effect"],
                "exact": data["exact"],
                "promoted": [token for token, _ in card.get("promoted", [])[:6]],
                "density": card.get("density"),
                "examples": [_marked(e) for e in card.get("examples", [])[:4]],
            }
        )
    return rows


def _marked(example: dict[str, Any]) -> str:
    """An example with its strongest token in brackets."""
    peak = example["peak"]
    tokens = [f"[{t}]" if i == peak else t for i, t in enumerate(example["tokens"])]
    return "".join(tokens[max(0, peak - 8) : peak + 4])


if __name__ == "__main__":
    main()
