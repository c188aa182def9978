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
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import To
from circuits.ablation.path_patching import exact_edges
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import Estimator, effects_by_prompt
from circuits.attribution.state import BatchState
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.graph import Node, write_json
from circuits.metrics.answers import metric_of
from circuits.metrics.metric import Metric
from circuits.prompts import EncodedPrompts, encode_prompts, read_prompts
from circuits.runs.commands import make_prompts
from circuits.verification.estimator_agreement import Edge, agreement
from circuits.verification.faithfulness_curves import Scale, Setting
from hooked_qwen.bundled.language import TASKS
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.sites import Site
from saes.suite import Suite, load_suite

RESULTS = Path(__file__).parent / "results"
ESTIMATORS: tuple[Estimator, ...] = ("patching", "relp", "ig", "ig-inputs")
ANSWERS = ("slope", "gradient", "along the way")
"""How a feature answers its pre-activation, and where the Jacobian is taken: by slope or by
gradient at the clean run, or by slope along the way (see `circuits.attribution.edges`)."""
EDGE_STEPS = 8
NODES, EDGES = 100, 100
SIZES = (20, 100, 500)
ABLATED_TO: tuple[To, ...] = ("patch", "mean")


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
        case = Case(task, model, suite, _prompts(task, chosen.pairs, chosen.model, model))
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


def _prompts(task: str, n: int, name: str, model: TransformerBridge) -> EncodedPrompts:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        make_prompts(task, n, split="test", seed=0, model=name, out=file)
        pairs = read_prompts(file)
    lengths = {len(model.tokenizer(p.clean)["input_ids"]) for p in pairs}
    return encode_prompts(pairs, model.tokenizer, positions="keep" if len(lengths) == 1 else "sum")


@dataclass(frozen=True)
class Case:
    """One task's prompts, run once; every estimator is given the same state."""

    task: str
    model: TransformerBridge
    suite: Suite
    prompts: EncodedPrompts

    @cached_property
    def metric(self) -> Metric:
        """The logit difference of the prompts."""
        return metric_of("logit-difference", self.model, self.prompts)

    @cached_property
    def state(self) -> BatchState:
        """All prompts as one batch."""
        (state,) = states_of(self.model, self.suite, self.prompts, self._config("ig"), None)
        return state

    @cached_property
    def ranked(self) -> dict[str, tuple[Ranking, Mapping[Site, Tensor]]]:
        """Every estimator's nodes, strongest first, and its gradients."""
        found = {}
        for name in ESTIMATORS:
            ranking, (gradients,) = rank_nodes(
                self.model,
                self.suite,
                self.prompts,
                self.metric,
                config=self._config(name),
                means=None,
                states=[self.state],
            )
            found[name] = ranking, gradients
        return found

    def _config(self, estimator: Estimator) -> DiscoverConfig:
        return DiscoverConfig(
            estimator=estimator,
            positions="keep" if self.prompts.columns else "sum",
            batch_size=len(self.prompts),
        )

    def circuits(self, to: To) -> dict[str, Any]:
        """Faithfulness of the strongest nodes by each estimator."""
        config = self._config("ig")
        scale = Scale.of(
            Setting(
                model=self.model,
                metric=self.metric,
                prompts=self.prompts,
                to=to,
                discovered=config,
            ),
            self.suite,
        )
        found = {}
        for name, (ranking, _) in self.ranked.items():
            nodes = [n for n, _ in ranking if n.kind != "token"]
            found[name] = scale.curve([nodes[:size] for size in SIZES]).record()
        return {"n": SIZES} | found

    def nodes(self) -> dict[str, Any]:
        """Agreement of each estimator with exact effects, over the strongest nodes by any."""
        nodes = sorted({n for ranking, _ in self.ranked.values() for n in _first(ranking)}, key=str)
        exact = exact_effects(self.model, self.suite, self.state, self.metric, nodes)
        return {"n": len(nodes)} | {
            name: agreement(effects_by_prompt(self.suite, self.state, g, nodes), exact)
            for name, (_, g) in self.ranked.items()
        }

    def edges(self) -> dict[str, Any]:
        """Agreement of each way of weighing edges with path patching, on the strongest by any."""
        ranking, gradients = self.ranked["ig"]
        nodes = _first(ranking) + [n for n, _ in ranking if n.kind == "token"]
        ways = {
            "slope": (self.state, 0),
            "gradient": (_by_gradient(self.state), 0),
            "along the way": (self.state, EDGE_STEPS),
        }
        weights = {
            name: edge_weights(
                self.model, self.suite, state, gradients, self.metric, nodes, steps=steps
            )
            for name, (state, steps) in ways.items()
        }
        edges = sorted({e for some in weights.values() for e in _strongest(some)}, key=str)
        exact = exact_edges(self.model, self.suite, self.state, gradients, self.metric, edges)
        n = len(self.prompts)
        return {"n": len(edges)} | {
            name: agreement(torch.tensor([[some[e] / n] for e in edges]).double(), exact)
            for name, some in weights.items()
        }


def _first(ranking: Ranking) -> list[Node]:
    return [n for n, _ in ranking if n.kind != "token"][:NODES]


def _by_gradient(state: BatchState) -> BatchState:
    """The state with features that answer by their gradient at clean: 1 if on, 0 if off."""
    return replace(
        state,
        sites={
            s: replace(nodes, slope=(nodes.f != 0).to(nodes.f)) for s, nodes in state.sites.items()
        },
    )


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
