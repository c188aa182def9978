"""Which estimate is right? Every estimator of node effects, and three of edges, against the oracle.

    python -m experiments.estimators.run [--model MODEL --dictionaries DIR] [--pairs N]
                                         [--task TASK ...]

Circuits: how faithful the strongest nodes by each estimator are, all others at the patch and at
their mean. Nodes: the hundred largest by each estimator, against exact ablation. Edges: the
hundred largest by each way of weighing them, among the nodes that `ig` ranks first, against path
patching.
Results go to `results/MODEL.json` beside this file, with the tables of the README.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.path_patching import exact_edges
from circuits.analysis import Analysis
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import effects_by_prompt
from circuits.attribution.node_effects import TOKEN
from circuits.attribution.spill import PerSite
from circuits.attribution.state import BatchState
from circuits.baseline_values import BaselineValue
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.graph import Edge, Node, write_json
from circuits.prompts import EncodedPrompts, encode_prompts, read_prompts
from circuits.runs.prompt_sets import make_prompts
from circuits.verification.estimator_agreement import agreement
from circuits.verification.faithfulness_curves import Scale
from hooked_qwen.bundled.language import TASKS
from hooked_qwen.load import BUNDLED, load
from saes.suite import Suite, load_suite

RESULTS = Path(__file__).parent / "results"
ESTIMATORS = ("patching", "relp", "ig", "ig-inputs")
ANSWERS = ("slope", "gradient", "along the way")
"""How a feature answers its pre-activation, and where the Jacobian is taken: by slope or by
gradient at the clean run, or by slope along the way (see `circuits.attribution.edges`)."""
EDGE_STEPS = 8
NODES, EDGES = 100, 100
SIZES = (20, 100, 500)
ABLATED_TO: tuple[BaselineValue, ...] = ("patch", "mean")


def main() -> None:
    """Parse the arguments and compare on every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--dictionaries", default=BUNDLED)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--task", action="append")
    chosen = parser.parse_args()
    model = load(chosen.model)
    suite = load_suite(chosen.dictionaries)
    found = {}
    for task in chosen.task or TASKS:
        case = Case(_analysis(model, suite, task_prompts(task, chosen.pairs, chosen.model, model)))
        circuits = {f"circuits, {to}": case.circuits(to) for to in ABLATED_TO}
        found[task] = circuits | {"nodes": case.nodes(), "edges": case.edges()}
    RESULTS.mkdir(exist_ok=True)
    write_json({"pairs": chosen.pairs, "tasks": found}, RESULTS / f"{Path(chosen.model).stem}.json")
    tables = [
        *(table(found, f"circuits, {to}", ESTIMATORS, _faithful) for to in ABLATED_TO),
        table(found, "nodes", ESTIMATORS, _agrees),
        table(found, "edges", ANSWERS, _agrees),
    ]
    print(*tables, sep="\n\n")


def task_prompts(task: str, n: int, name: str, model: TransformerBridge) -> EncodedPrompts:
    """`n` pairs of the test split of a task; positions are kept where all are of one length."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        make_prompts(task, n, split="test", seed=0, model=name, out=file)
        pairs = read_prompts(file)
    lengths = {len(model.tokenizer(p.clean)["input_ids"]) for p in pairs}
    return encode_prompts(pairs, model.tokenizer, positions="keep" if len(lengths) == 1 else "sum")


def _analysis(model: TransformerBridge, suite: Suite, prompts: EncodedPrompts) -> Analysis:
    """Of all prompts as one batch, by the first of the estimators."""
    config = DiscoverConfig(
        estimator=ESTIMATORS[0],
        positions="keep" if prompts.columns else "sum",
        batch_size=len(prompts),
    )
    return Analysis.of(model, suite, prompts, config)


@dataclass(frozen=True)
class Case:
    """One task's prompts, run once; every estimator is given the same state."""

    analysis: Analysis

    @property
    def state(self) -> BatchState:
        """All prompts as one batch."""
        (state,) = self.analysis.states
        return state

    @cached_property
    def ranked(self) -> dict[str, tuple[Ranking, PerSite]]:
        """Every estimator's nodes, strongest first, and its gradients."""
        found = {}
        for name in ESTIMATORS:
            config = replace(self.analysis.config, estimator=name)
            ranking, (gradients,) = rank_nodes(self.analysis.asked(config))
            found[name] = ranking, gradients
        return found

    def circuits(self, to: BaselineValue) -> dict[str, Any]:
        """Faithfulness of the strongest nodes by each estimator."""
        scale, found = Scale.of(self.analysis, to), {}
        for name, (ranking, _) in self.ranked.items():
            nodes = ranking.inner()
            found[name] = scale.curve([nodes[:size].as_set() for size in SIZES]).record()
        return {"n": SIZES} | found

    def nodes(self) -> dict[str, Any]:
        """Agreement of each estimator with exact effects, over the strongest nodes by any."""
        nodes = sorted({n for ranking, _ in self.ranked.values() for n in _first(ranking)}, key=str)
        exact = exact_effects(self.analysis, self.state, nodes)
        return {"n": len(nodes)} | {
            name: agreement(effects_by_prompt(self.analysis, self.state, g, nodes), exact)
            for name, (_, g) in self.ranked.items()
        }

    def edges(self) -> dict[str, Any]:
        """Agreement of each way of weighing edges with path patching, on the strongest by any."""
        ranking, gradients = self.ranked["ig"]
        nodes = [*_first(ranking), *ranking.where(ranking.feature == TOKEN).nodes()]
        ways = {
            "slope": (self.state, 0),
            "gradient": (_by_gradient(self.state), 0),
            "along the way": (self.state, EDGE_STEPS),
        }
        config = self.analysis.config
        weights = {
            name: edge_weights(
                self.analysis.asked(replace(config, edge_steps=steps)), state, gradients, nodes
            )
            for name, (state, steps) in ways.items()
        }
        edges = sorted({e for some in weights.values() for e in _strongest(some)}, key=str)
        exact = exact_edges(self.analysis, self.state, gradients, edges)
        n = len(self.analysis.prompts)
        return {"n": len(edges)} | {
            name: agreement(torch.tensor([[some[e] / n] for e in edges]).double(), exact)
            for name, some in weights.items()
        }


def _first(ranking: Ranking) -> list[Node]:
    return ranking.inner()[:NODES].nodes()


def _by_gradient(state: BatchState) -> BatchState:
    """The state with features that answer by their gradient at clean: 1 if on, 0 if off."""
    found = {name: replace(nodes, slope=nodes.f.on()) for name, nodes in state.features.items()}
    return replace(state, features=found)


def _strongest(weights: Mapping[Edge, float]) -> list[Edge]:
    return sorted(weights, key=lambda e: (-abs(weights[e]), str(e)))[:EDGES]


def table(
    found: Mapping[str, Any], part: str, names: Sequence[str], cell: Callable[[Any], str]
) -> str:
    """One part of the comparison, a line a task."""
    lines = [f"| task | {part} | " + " | ".join(names) + " |", "|---|" + "---|" * (len(names) + 1)]
    for task, figures in found.items():
        cells = [cell(figures[part][name]) for name in names]
        lines.append(f"| {task} | {figures[part]['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _faithful(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:.2f}" for value in figures["faithfulness"])


def _agrees(figures: Mapping[str, Any]) -> str:
    """Spearman's correlation with its interval, and the share of equal signs."""
    low, high = figures["intervals"]["spearman"]
    return f"{figures['spearman']:.2f} ({low:.2f} to {high:.2f}), {figures['sign_agreement']:.0%}"


if __name__ == "__main__":
    main()
