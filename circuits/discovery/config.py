"""What is estimated of a prompt set, and what is kept of it."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from circuits.attribution.estimators import ESTIMATORS, estimator
from circuits.baseline_values import BaselineValue
from circuits.metrics.readout import MetricChoice, check_metric, metric_name
from circuits.prompts import Positions
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.tokens import Bos

GraphMethod = Literal["sparse-feature", "replacement"]
UNUSED: dict[GraphMethod, tuple[str, ...]] = {
    "sparse-feature": ("method", "targets", "paths"),
    "replacement": ("estimator", "steps", "edge_steps", "faithfulness", "batch_size"),
}
"Fields that decide nothing about a graph of a method, and are not on its record."


@dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """What is estimated, and what is kept of it."""

    method: GraphMethod = "sparse-feature"
    "effects by the model's own gradients, or the exact graph of a replacement model"
    metric: MetricChoice = "logit-difference"
    "logit-difference, log-probability, probability-difference, kl, feature:SITE/INDEX[@POSITION], "
    "a `Readout`, or any differentiable function of last logits and prompt numbers"
    estimator: str = "ig"
    "a row of `circuits.attribution.estimators`"
    nodes: int | None = 100
    "features and errors kept at most, the strongest by the size of their mean effect; of a "
    "replacement graph those of most influence, where None keeps all of them and every edge"
    threshold: float | None = None
    "keep only those of them whose effect is at least this large, in units of the metric; of a "
    "replacement graph those with this much influence, of 1"
    influence: float | None = None
    "keep only the fewest of them that hold this share of the influence on the output"
    faithfulness: float | None = None
    "take the least needed of them away while the circuit stays as faithful as this"
    positions: Positions = "keep"
    bos: Bos = "auto"
    "what stands before each prompt: what the tokenizer adds, always its BOS token, or nothing"
    reference: BaselineValue = "patch"
    steps: int = 10
    "points on the path of integrated gradients"
    edge_steps: int = 0
    "points on the way from clean to patch at which an edge's Jacobian is taken; 0: at clean"
    edge_threshold: float = 0.01
    "edges weaker than this share of the strongest feature's or error's effect are left out, but "
    "for those that connect a node to the rest"
    targets: int | None = 7500
    "features of a replacement graph whose inputs are traced, of most influence; None: all"
    paths: int | None = None
    "of a replacement graph keep what lies on this many strongest paths of each prompt"
    batch_size: int = 32
    "prompts run together; changes no result beyond rounding"

    def record(self) -> dict[str, Any]:
        """The configuration as files hold it, the metric by its name."""
        named = [f.name for f in fields(self) if f.name not in UNUSED[self.method]]
        return {name: getattr(self, name) for name in named} | {"metric": metric_name(self.metric)}

    @property
    def node_count(self) -> int:
        """`nodes`, for a method that needs a number."""
        assert self.nodes is not None, "a sparse feature graph has a number of nodes"
        return self.nodes

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_at_least(1, self, "nodes", "steps", "batch_size", "targets", "paths")
        if self.edge_steps < 0:
            raise ValueError(f"edge_steps is {self.edge_steps}: expected 0 or more")
        if not 0 <= self.edge_threshold < math.inf:
            raise ValueError(f"edge_threshold is {self.edge_threshold}: expected 0 or more")
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(f"threshold is {self.threshold}: expected a size, 0 or more")
        if self.faithfulness is not None and self.faithfulness <= 0:
            raise ValueError(f"faithfulness is {self.faithfulness}: expected more than 0")
        if self.influence is not None and not 0 < self.influence <= 1:
            raise ValueError(f"influence is {self.influence}: expected a share, over 0, at most 1")
        rules = ("threshold", "influence", "faithfulness", "paths")
        chosen = [name for name in rules if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"prune by one of {' and '.join(chosen)}, not by both")
        self._check_method()
        self._check_estimator()

    def _check_method(self) -> None:
        if self.method == "sparse-feature" and self.nodes is None:
            raise ValueError("all nodes are kept of a replacement graph only: give a number")
        if self.method == "sparse-feature" and self.paths is not None:
            raise ValueError("paths are of replacement graphs: ask for --method replacement")
        if self.method == "replacement":
            for name in ("estimator", "steps", "edge_steps", "faithfulness"):
                if getattr(self, name) != getattr(DiscoverConfig, name):
                    raise ValueError(
                        f"{name} is {getattr(self, name)!r}, which is of sparse feature graphs: "
                        "the edges of a replacement graph are exact, and kept by influence"
                    )
            if self.reference == "mean":
                raise ValueError(
                    "effects in a replacement graph are of moving a node to the patch or to zero, "
                    "not to the mean: say which with --reference"
                )

    def _check_estimator(self) -> None:
        asked = estimator(self.estimator)
        if asked.needs_patch and self.reference != "patch":
            raise ValueError(
                f"{self.estimator} takes the embeddings to those of a patch, but the reference is "
                f"{self.reference}: use the estimator ig"
            )
        if asked.at_clean and self.metric == "kl":
            others = [name for name, other in ESTIMATORS.items() if not other.at_clean]
            raise ValueError(
                f"kl has no gradient at the clean run, which {self.estimator} takes: "
                f"use the estimator {', '.join(others[:-1])} or {others[-1]}"
            )
