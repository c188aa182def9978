"""Every estimator of node effects: a new one is a function of an analysis and a row here.

An estimator gives the gradient of the metric to each site's tensor; effects of nodes
(`circuits.attribution.effects.node_effects`) and weights of edges follow from it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from circuits.analysis import Analysis
    from circuits.attribution.effects import Gradients
    from circuits.attribution.state import BatchState

Rules = Callable[["TransformerBridge"], AbstractContextManager[None]]


def _plain(model: "TransformerBridge") -> AbstractContextManager[None]:
    return nullcontext()


def _read(name: str) -> Callable[..., Any]:
    """The function MODULE:NAME, read when it is called.

    The command line lists the estimators without loading torch.
    """
    module, function = name.split(":")
    return lambda *args: getattr(import_module(module), function)(*args)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """How effects are estimated."""

    estimate: Callable[["Analysis", "BatchState"], "Gradients"]
    rules: Rules = _plain
    "by which gradients are taken, of nodes and of edges: the model's own, or others"
    exact: bool = False
    "whether nodes are ranked by running the model once for each; edges go by `estimate`"
    at_clean: bool = False
    "whether one gradient is all: at the clean run, where a divergence from it has none"
    needs_patch: bool = False
    "whether the embeddings go to those of a patch"

    def gradients(self, analysis: "Analysis", state: "BatchState") -> "Gradients":
        """The metric's gradient to every site's tensor."""
        with self.rules(analysis.model):
            return self.estimate(analysis, state)


_PATH = Estimator(estimate=_read("circuits.attribution.effects:gradients_along_path"))
_CLEAN = Estimator(estimate=_read("circuits.attribution.effects:gradients_at_clean"), at_clean=True)
ESTIMATORS = {
    "ig": _PATH,
    "ig-inputs": Estimator(
        estimate=_read("circuits.attribution.effects:gradients_along_inputs"), needs_patch=True
    ),
    "patching": _CLEAN,
    "relp": replace(_CLEAN, rules=_read("hooked_qwen.relevance:relevance_rules")),
    "exact": replace(_PATH, exact=True),
}


def estimator(name: str) -> Estimator:
    """The estimator of that name; raises `ValueError` for one that there is not."""
    if name not in ESTIMATORS:
        raise ValueError(
            f"no estimator is called {name!r}: expected one of {', '.join(ESTIMATORS)}"
        )
    return ESTIMATORS[name]
