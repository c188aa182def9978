"""Transcoders, skip transcoders and SAEs of the same MLPs, at equal L0: fidelity and circuit size.

    python -m experiments.transcoders_and_saes.run --work DIR [--pairs N] [--task TASK ...]

Dictionaries of every MLP of the bundled model: SAEs of its output and transcoders with 3 features
on (512, those that ship), and both with 16 on (2,048), these also as skip transcoders, trained in
DIR unless they are there. A circuit is the strongest nodes by `ig`, all others at the patch; only
MLPs have nodes, attention runs on as it does. Results go to `results/` beside this file.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.attribution.node_effects import ERROR
from circuits.cli.progress_bars import bars
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.graph import rounded, write_json
from circuits.prompts import EncodedPrompts
from circuits.verification.faithfulness_curves import Scale
from experiments.estimators.run import task_prompts
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import texts_of
from saes.dictionary import DictionarySpec
from saes.evaluation.baselines import evaluate_with_baselines, neurons_inside_mlps, untrained
from saes.evaluation.metrics import Quality, held_out_blocks
from saes.sae import sae
from saes.suite import Suite, load_suite
from saes.training.config import TrainConfig
from saes.training.train import train
from transcoders.transcoder import transcoder

RESULTS = Path(__file__).parent / "results"
K, LAYERS = 16, range(5)
TRAINING = TrainConfig(width=2048, tokens=800_000, learning_rate=2e-3, precision="bfloat16")
STREAM = StreamConfig(reuse=2)
TRAINED: dict[str, list[DictionarySpec]] = {
    "SAE, 16 on": [sae(Site("mlp_out", layer), k=K) for layer in LAYERS],
    "transcoder, 16 on": [transcoder(layer, k=K) for layer in LAYERS],
    "skip transcoder, 16 on": [transcoder(layer, k=K, skip=True) for layer in LAYERS],
}
TASKS = ("agreement_nounpp", "greater_than", "two_step", "ioi", "pronoun", "brackets")
SIZES = (5, 10, 20, 50, 100, 200, 500)
WANTED, BY_FEATURES = 0.8, 0.5
"Shares of the metric's difference that circuits are to keep, with errors and without."
FIGURES = ("l0", "fvu", "kl", "loss_recovered", "dead")
JUDGED_ON, CONTROLS_ON = 2048, 8192
"tokens of the held-out beginning of the text, and of what follows"


def main() -> None:
    """Train what is not there, judge, find circuits, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--task", action="append", choices=TASKS)
    chosen = parser.parse_args()
    model = load(BUNDLED)
    suites = {name: suite.fitting(model) for name, suite in _suites(model, chosen.work).items()}
    quality = qualities(model, suites)
    found = {}
    for task in chosen.task or TASKS:
        prompts = task_prompts(task, chosen.pairs, BUNDLED, model)
        first = next(iter(suites.values()))
        controls = {
            "neurons": neurons_inside_mlps(model, first),
            "untrained, 16 on": untrained(suites["transcoder, 16 on"]),
        }
        found[task] = circuits_of(model, prompts, {**suites, **controls}, SIZES)
    RESULTS.mkdir(exist_ok=True)
    write_json({"quality": quality, "tasks": found}, RESULTS / "bundled.json")
    print(quality_table(quality), size_table(found), sep="\n\n")


def _suites(model: TransformerBridge, work: Path) -> dict[str, Suite]:
    shipped = {
        "SAE, 3 on": _of_mlps(load_suite(BUNDLED, mlp="sae")),
        "transcoder, 3 on": _of_mlps(load_suite(BUNDLED, mlp="transcoder")),
    }
    for name, specs in TRAINED.items():
        out = work / name.partition(",")[0].replace(" ", "-")
        if not (out / "suite.json").exists():
            with bars() as report:
                texts = texts_of([BUNDLED])
                train(model, specs, texts, out, config=TRAINING, stream=STREAM, report=report)
        shipped[name] = load_suite(out)
    return shipped


def _of_mlps(suite: Suite) -> Suite:
    others = [name for name in suite if not name.startswith("mlp_out")]
    return suite.exchanging(others, {})


def qualities(model: TransformerBridge, suites: Mapping[str, Suite]) -> dict[str, Any]:
    """The quality of every dictionary on the same held-out text, with its controls."""
    blocks = held_out_blocks(texts_of([BUNDLED])(), model, tokens=JUDGED_ON + CONTROLS_ON)
    n, found = JUDGED_ON // blocks.shape[1], {}
    for name, suite in suites.items():
        judged = evaluate_with_baselines(
            model, list(suite.values()), blocks[:n], fitted_on=blocks[n:]
        )
        found[name] = [
            _figures(one.quality) | {k: _figures(v) for k, v in one.controls.items()}
            for one in judged
        ]
    return found


def _figures(quality: Quality) -> dict[str, Any]:
    found = asdict(quality)
    intervals = {name: found["intervals"][name] for name in ("fvu", "kl")}
    return {name: found[name] for name in FIGURES} | {"intervals": intervals}


def circuits_of(
    model: TransformerBridge,
    prompts: EncodedPrompts,
    suites: Mapping[str, Suite],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Faithfulness of circuits of these sizes, by every suite and what stands in for features."""
    found = {}
    for name, suite in suites.items():
        config = DiscoverConfig(
            positions="keep" if prompts.columns else "sum", batch_size=len(prompts)
        )
        analysis = Analysis.of(model, suite, prompts, config)
        ranking = rank_nodes(analysis)[0].inner()
        found[name] = _curves(Scale.of(analysis, "patch"), ranking, sizes)
    return found


def _curves(scale: Scale, ranking: Ranking, wanted_sizes: Sequence[int]) -> dict[str, Any]:
    """Of the strongest nodes, of the strongest features without errors, and of nodes at random."""
    generator = torch.Generator().manual_seed(0)
    shuffled = ranking[torch.randperm(len(ranking), generator=generator)]
    rows = {"nodes": ranking, "no errors": ranking.features(), "random": shuffled}
    found: dict[str, Any] = {"nodes that move": len(ranking)}
    for name, some in rows.items():
        sizes = [size for size in wanted_sizes if size < len(some)] + [len(some)]
        record = scale.curve([some[:size].as_set() for size in sizes]).record()
        kept = {key: record[key] for key in ("faithfulness", "low", "high")}
        wanted = BY_FEATURES if name == "no errors" else WANTED
        found[name] = {"sizes": sizes, **kept, "size": size_at(wanted, sizes, kept["faithfulness"])}
    size = found["nodes"]["size"]
    if size is not None:
        found["errors among them"] = int((ranking[: round(size)].feature == ERROR).sum())
    return found


def size_at(wanted: float, sizes: Sequence[int], kept: Sequence[float | None]) -> float | None:
    """How many nodes keep the share `wanted`, on a line between sizes; None where none do."""
    before, share = 0, 0.0
    for size, value in zip(sizes, kept, strict=True):
        assert value is not None, "faithfulness has a scale here"
        if value >= wanted:
            return rounded(before + (size - before) * (wanted - share) / (value - share))
        before, share = size, value
    return None


def quality_table(quality: Mapping[str, Any]) -> str:
    """FVU, KL and L0 of every layer."""
    lines = [
        "| dictionary | L0 | FVU by layer | KL by layer, nats | dead |",
        "|---|---|---|---|---|",
    ]
    for name, layers in quality.items():
        l0 = sum(one["l0"] for one in layers) / len(layers)
        dead = sum(one["dead"] for one in layers) / len(layers)
        fvu = ", ".join(f"{one['fvu']:.3f}" for one in layers)
        kl = ", ".join(f"{one['kl']:.4f}" for one in layers)
        lines.append(f"| {name} | {l0:.1f} | {fvu} | {kl} | {dead:.0%} |")
    return "\n".join(lines)


def size_table(found: Mapping[str, Any]) -> str:
    """Nodes that keep the wanted share, the errors among them, and what features do alone."""
    names = list(next(iter(found.values())))
    lines = [f"| task | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for task, by_name in found.items():
        cells = []
        for name in names:
            one = by_name[name]
            alone, most = one["no errors"]["size"], max(one["no errors"]["faithfulness"])
            told = f"{_number(one['nodes']['size'])} ({one.get('errors among them', '–')})"
            cells.append(f"{told}; {_number(alone)}, {most:.2f}")
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(size: float | None) -> str:
    return "–" if size is None else f"{size:.0f}"


if __name__ == "__main__":
    main()
