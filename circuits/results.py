"""What each step of a job gives in a notebook: it shows itself, its tables are DataFrames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import pandas as pd

from circuits.analysis import Analysis
from circuits.discovery.ranking import Ranking
from circuits.edits.ablation import Ablation
from circuits.render.export.export import edges_table, nodes_table
from hooked_qwen.html_tables import ROWS, html_table, paragraph


@dataclass(eq=False)
class Circuit:
    """A circuit and what it was found in; `graph` is a plain `networkx.DiGraph`.

    circuit = circuits.discover(analysis)
    circuit.nodes.query("kind == 'feature'").head()
    """

    analysis: Analysis
    graph: nx.DiGraph
    "keys are Node(site, feature, position); attributes as in `graph.json`"
    ranking: Ranking
    "every changed node with its mean effect, strongest first"
    verification: "Verification | None" = None
    "once `verify` has run"
    ablations: "dict[str, Ablated]" = field(default_factory=dict)
    "by name, those that were made of it"
    cards: Mapping[str, Any] | None = None
    "what is known of each feature: texts that activate it, tokens that it promotes"

    @property
    def nodes(self) -> pd.DataFrame:
        """Every node of the graph, strongest first, with its attributes."""
        return _nodes(self.graph)

    @property
    def edges(self) -> pd.DataFrame:
        """Every edge of the graph, strongest first, with its weight."""
        return edges_table(self.graph)

    def __repr__(self) -> str:
        n, m = self.graph.number_of_nodes(), self.graph.number_of_edges()
        return f"Circuit of {n} nodes and {m} edges ({self.analysis!r})"

    def _repr_html_(self) -> str:
        return paragraph(repr(self)) + html_table(self.nodes.head(ROWS))


@dataclass(frozen=True, eq=False)
class Verification:
    """How a circuit stands up to ablation: the record of `verification.json`.

    circuits.verify(circuit, level="quick").agreement
    """

    record: Mapping[str, Any]

    @property
    def faithfulness(self) -> pd.DataFrame:
        """Faithfulness of each row, circuit and controls, by the number of nodes that are kept."""
        curves = self.record["curves"]
        rows = {name: row["faithfulness"] for name, row in curves["rows"].items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=curves["sizes"])

    @property
    def agreement(self) -> pd.DataFrame:
        """How estimates agree with exact ablation, for nodes and for edges."""
        parts = {"nodes": self.record["nodes"]}
        parts |= {f"edges, {name}": f for name, f in self.record["edges"].items()}
        if "pool" in self.record:
            parts["nodes that no estimator chose"] = self.record["pool"]
        figures = ("n", "spearman", "slope", "sign_agreement")
        return pd.DataFrame(
            {
                name: [found[f] for f in figures]
                for name, found in parts.items()
                if name != "edges, points"
            },
            index=list(figures),
        ).T

    def __repr__(self) -> str:
        found = self.record["curves"]["margin"]
        return (
            f"Verification: {found['size']} nodes keep {found['circuit']:.2f} of the metric, as "
            f"many random ones {found['random nodes']:.2f}"
        )

    def _repr_html_(self) -> str:
        return paragraph(repr(self)) + html_table(self.faithfulness) + html_table(self.agreement)


@dataclass(frozen=True, eq=False)
class Ablated:
    """The prompts with nodes ablated, and the graph that is left.

    circuits.ablate(circuit, top=3, to="mean").prompts[["before", "after"]]
    """

    ablation: Ablation
    record: Mapping[str, Any]
    "that of `result.json`"
    graph: nx.DiGraph

    @property
    def prompts(self) -> pd.DataFrame:
        """The metric of each prompt before and after."""
        return pd.DataFrame(self.record["prompts"])

    @property
    def controls(self) -> pd.DataFrame:
        """What as many other nodes do."""
        return pd.DataFrame(self.record["controls"])

    @property
    def nodes(self) -> pd.DataFrame:
        """The nodes of the graph that is left."""
        return _nodes(self.graph)

    def __repr__(self) -> str:
        r = self.record
        change = f"from {r['before']:.3f} to {r['after']:.3f}"
        return f"Ablated to {self.ablation.to}: the metric goes {change}"

    def _repr_html_(self) -> str:
        prompts = self.prompts.head(ROWS)
        return paragraph(repr(self)) + html_table(self.controls) + html_table(prompts)


@dataclass(frozen=True, eq=False)
class Sufficiency:
    """A task's score by the number of kept features: the record of `sufficiency.json`.

    circuits.sufficiency(of_transcoders, layers=(2,), sizes=(4,)).scores
    """

    record: Mapping[str, Any]

    @property
    def scores(self) -> pd.DataFrame:
        """The mean metric of each row, features and controls, by the number that is kept."""
        rows = {name: row["score"] for name, row in self.record["rows"].items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=self.record["sizes"])

    def __repr__(self) -> str:
        model, replaced, nothing = (
            self.record[name]["score"] for name in ("model", "replaced", "nothing")
        )
        return (
            f"Sufficiency: {self.record['metric']} {model:.2f}, {replaced:.2f} with all features "
            f"of the transcoders, {nothing:.2f} with none"
        )

    def _repr_html_(self) -> str:
        return paragraph(repr(self)) + html_table(self.scores)


def _nodes(graph: nx.DiGraph) -> pd.DataFrame:
    return nodes_table(graph).rename(columns={"id": "node"}).set_index("node")
