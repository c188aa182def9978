"""Hold a graph that a person edited against ablation: its nodes, and with them its edges.

nodes               every node outside ablated, every edge between those inside kept
nodes and edges     edges that the graph lacks cut too (`circuits.ablation.restricted_run`)
random edges        as many edges between the same nodes, drawn from those that can carry
                    anything; the mean of some draws
each edge           what the circuit loses in faithfulness without it
"""

import random
from collections.abc import Sequence
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.edge_circuits import OUTPUT, EdgeCircuit, check_circuit, possible_edges
from circuits.ablation.faithfulness import Measured, metric_with
from circuits.ablation.restricted_run import restricted_metric
from circuits.analysis import Analysis
from circuits.edits.graph import expanded
from circuits.graph import Edge, rounded
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from circuits.verification.faithfulness_curves import Scale
from circuits.verification.verify import VerifyConfig, ablated_to, on_held_out
from hooked_qwen.progress import Report, counting, silent
from saes.evaluation.bootstrap import interval
from saes.nodes import NodeSet

SCHEMA = "edited-circuit/1"
STRONGEST = 30
"Edges that are cut one at a time."


def verify_edited(
    analysis: Analysis,
    graph: nx.DiGraph,
    *,
    config: VerifyConfig | None = None,
    held_out: EncodedPrompts | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """The record of how faithful a graph's nodes are, and its nodes with its edges alone.

    Groups are taken apart first. `config.level` `quick` draws one set of random edges and cuts no
    edge alone. Raises `ValueError` for nodes that the dictionaries do not have.
    """
    config, graph = config or VerifyConfig(), expanded(graph)
    circuit = EdgeCircuit.of(graph)
    check_circuit(analysis.suite, circuit)
    every = possible_edges(analysis.suite, analysis.metric, circuit.nodes)
    idle = sorted(circuit.edges - set(every), key=str)
    circuit = EdgeCircuit(circuit.nodes, circuit.edges & set(every))
    quick = config.level == "quick"
    drawn = _drawn(circuit, every, draws=1 if quick else config.draws, seed=config.seed)
    alone = [] if quick else _strongest(graph, circuit)
    other = None if held_out is None else on_held_out(analysis, held_out)
    scale = Scale.of(analysis, ablated_to(analysis, config))
    rows, each = _measured(scale, circuit, drawn, alone, report)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "level": config.level,
        "metric": metric_name(analysis.config.metric),
        "baseline": scale.to,
        "nodes": len(circuit.nodes),
        "edges": len(circuit.edges),
        "possible_edges": len(every),
        "edges_that_carry_nothing": [[str(u), str(d)] for u, d in idle],
        "full": rounded(float(scale.full_and_empty.full.mean())),
        "empty": rounded(float(scale.full_and_empty.empty.mean())),
        "rows": rows,
        "each_edge": each,
    }
    if other is not None:
        rows, _ = _measured(Scale.of(other, scale.to), circuit, drawn, [], report)
        record["held_out"] = {"n_prompts": len(other.prompts), "rows": rows}
    return record


def _drawn(
    circuit: EdgeCircuit, every: Sequence[Edge], *, draws: int, seed: int
) -> list[EdgeCircuit]:
    """Circuits of the same nodes with as many edges, drawn at random."""
    n = min(len(circuit.edges), len(every))
    return [
        EdgeCircuit(circuit.nodes, frozenset(random.Random(seed + i).sample(every, n)))
        for i in range(draws)
    ]


def _strongest(graph: nx.DiGraph, circuit: EdgeCircuit) -> list[tuple[Edge, float | None]]:
    """The edges with the largest weights, those without one last."""
    weights: dict[Edge, float | None] = {}
    for u, d, data in graph.edges(data=True):
        edge = u, OUTPUT if d.kind == "logit" else d
        if edge in circuit.edges:
            weights[edge] = data.get("weight")
    ranked = sorted(weights.items(), key=lambda item: (-abs(item[1] or 0.0), str(item[0])))
    return ranked[:STRONGEST]


def _measured(
    scale: Scale,
    circuit: EdgeCircuit,
    drawn: Sequence[EdgeCircuit],
    alone: Sequence[tuple[Edge, float | None]],
    report: Report,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Each row with its interval, and what each edge that is cut alone takes away."""
    cut = [EdgeCircuit(circuit.nodes, circuit.edges - {edge}) for edge, _ in alone]
    inner = NodeSet.of(n for n in circuit.nodes if n.kind in ("feature", "error"))
    tick = counting(report, "edited circuit", 2 + len(drawn) + len(cut))
    values = [metric_with(scale.analysis, inner, scale.to)]
    tick(1)
    for one in (circuit, *drawn, *cut):
        values.append(restricted_metric(scale.analysis, one, scale.to))
        tick(1)
    found = scale.full_and_empty.faithfulness(torch.stack(values))
    rows = {
        "nodes": _row(found, [0]),
        "nodes and edges": _row(found, [1]),
        "random edges": _row(found, range(2, 2 + len(drawn))),
    }
    each = [
        {
            "source": str(edge[0]),
            "target": str(edge[1]),
            "weight": rounded(weight),
            **_gap(found, 1, 2 + len(drawn) + i),
        }
        for i, (edge, weight) in enumerate(alone)
    ]
    return rows, each


def _row(found: Measured, which: Sequence[int]) -> dict[str, Any]:
    values, draws = found.values[list(which)].mean(0), found.draws[list(which)].mean(0)
    return {"faithfulness": rounded(float(values)), "interval": interval(draws)}


def _gap(found: Measured, whole: int, without: int) -> dict[str, Any]:
    lost: Float[Tensor, " draws"] = found.draws[whole] - found.draws[without]
    value = found.values[whole] - found.values[without]
    return {"adds": rounded(float(value)), "interval": interval(lost)}
