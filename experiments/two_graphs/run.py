"""The sparse feature graph and the replacement graph of the same prompts, by the same transcoders.

    python -m experiments.two_graphs.run [--dictionaries DIR] [--pairs N] [--task TASK ...]

Transcoders of every MLP of the bundled model, those that ship unless DIR has others. Both graphs
rank every feature and error by what moving it to the patch does to the logit difference: the sparse
feature graph by the model's own gradients (`ig`), the replacement graph by its frozen map. Beside
them stands `patching`, one gradient at the clean run with attention and MLPs as they are. The
hundred strongest by any are ablated one by one, which is the oracle. Results go to `results/`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.node_effects import TOKEN
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.methods import discover_by_method
from circuits.discovery.ranking import Ranking
from circuits.graph import Node, rounded, write_json
from circuits.prompts import EncodedPrompts
from circuits.verification.estimator_agreement import agreement
from circuits.verification.faithfulness_curves import Scale
from experiments.estimators.run import task_prompts
from hooked_qwen.load import BUNDLED, load
from saes.suite import Suite, load_suite
from transcoders.in_suite import transcoders_among

RESULTS = Path(__file__).parent / "results"
TASKS = ("agreement_nounpp", "greater_than", "two_step", "ioi", "pronoun", "brackets")
GRAPHS = ("sparse feature, ig", "sparse feature, patching", "replacement")
NODES, SIZES = 100, (20, 100, 500)
TIMED = 3


def main() -> None:
    """Parse the arguments and compare on every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dictionaries", default=BUNDLED)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--name", default="bundled", help="of the results")
    chosen = parser.parse_args()
    model = load(BUNDLED)
    suite = load_suite(chosen.dictionaries, mlp="transcoder")
    names = transcoders_among(suite)
    suite = suite.exchanging([name for name in suite if name not in names], {})
    found = {}
    for task in chosen.task or TASKS:
        found[task] = Case(model, suite, task_prompts(task, chosen.pairs, BUNDLED, model)).record()
    RESULTS.mkdir(exist_ok=True)
    write_json({"pairs": chosen.pairs, "tasks": found}, RESULTS / f"{chosen.name}.json")
    print(table(found))


@dataclass(frozen=True)
class Case:
    """One task's prompts by one suite of transcoders."""

    model: TransformerBridge
    suite: Suite
    prompts: EncodedPrompts

    def analysis(self, graph: str) -> Analysis:
        """All prompts as one batch, asked for one kind of graph."""
        config = DiscoverConfig(
            positions="keep" if self.prompts.columns else "sum", batch_size=len(self.prompts)
        )
        if graph == "replacement":
            config = replace(config, method="replacement")
        else:
            config = replace(config, estimator=graph.rpartition(" ")[2])
        return Analysis.of(self.model, self.suite, self.prompts, config)

    @cached_property
    def found(self) -> dict[str, tuple[Ranking, float, dict[str, Any]]]:
        """Of each kind of graph every node, strongest first, seconds of the processor, scores."""
        return {graph: self._discover(graph) for graph in GRAPHS}

    def _discover(self, graph: str) -> tuple[Ranking, float, dict[str, Any]]:
        seconds = []
        for _ in range(TIMED):
            # An analysis keeps the states of its prompts: each discovery has one of its own.
            analysis, start = self.analysis(graph), process_time()
            discovery = discover_by_method(analysis)
            seconds.append(process_time() - start)
        ranking = discovery.ranking
        scores = ("replacement_score", "completeness_score")
        said = {
            name: discovery.graph.graph[name] for name in scores if name in discovery.graph.graph
        }
        return ranking.where(ranking.feature != TOKEN), median(seconds), said

    def record(self) -> dict[str, Any]:
        """Everything that is said of the task."""
        analysis = self.analysis(GRAPHS[0])
        (state,) = analysis.states
        nodes = sorted(
            {n for some, *_ in self.found.values() for n in some[:NODES].nodes()}, key=str
        )
        exact = exact_effects(analysis, state, nodes)
        effects = {graph: self._effects(some, nodes) for graph, (some, *_) in self.found.items()}
        scale = Scale.of(analysis, "patch")
        record: dict[str, Any] = {"nodes": len(nodes)}
        for graph, (some, seconds, scores) in self.found.items():
            circuits = [some[:size].as_set() for size in SIZES]
            estimate = torch.tensor(effects[graph]).double()[:, None]
            record[graph] = {
                "seconds": rounded(seconds),
                "nodes that move": len(some),
                **scores,
                "against ablation": agreement(estimate, exact),
                "faithfulness": scale.curve(circuits).record()["faithfulness"],
            }
        for graph in GRAPHS[:2]:
            record[f"{graph} and replacement"] = self._overlap(graph, effects)
        return record

    def _effects(self, ranking: Ranking, nodes: Sequence[Node]) -> list[float]:
        known = dict(ranking)
        return [known.get(node, 0.0) for node in nodes]

    def _overlap(self, graph: str, effects: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """How far two graphs choose the same nodes, and rank them alike."""
        a, b = ({*self.found[g][0][:NODES].nodes()} for g in (graph, "replacement"))
        columns = [torch.tensor(effects[g]).double()[:, None] for g in (graph, "replacement")]
        return {
            "shared of the strongest": len(a & b),
            "jaccard": rounded(len(a & b) / len(a | b)),
            "spearman": agreement(columns[0], columns[1])["spearman"],
        }


def table(found: Mapping[str, Any]) -> str:
    """One line for each task and graph."""
    head = ["task", "graph", "Spearman with ablation", "slope", "same sign"]
    head += [f"{size} nodes" for size in SIZES] + ["seconds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for task, record in found.items():
        for graph in GRAPHS:
            one = record[graph]
            agrees = one["against ablation"]
            low, high = agrees["intervals"]["spearman"] or (float("nan"),) * 2
            cells = [f"{agrees['spearman']:.2f} ({low:.2f} to {high:.2f})"]
            cells += [f"{agrees['slope']:.2f}", f"{agrees['sign_agreement']:.0%}"]
            cells += [f"{value:.2f}" for value in one["faithfulness"]] + [f"{one['seconds']:.1f}"]
            lines.append(f"| {task} | {graph} | {' | '.join(cells)} |")
        for graph in GRAPHS[:2]:
            one = record[f"{graph} and replacement"]
            shared, rank = one["shared of the strongest"], one["spearman"]
            told = f"{shared} of {NODES} shared, Spearman {rank:.2f}"
            lines.append(f"| | {graph} and replacement | {told} |" + " |" * (len(head) - 3))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
