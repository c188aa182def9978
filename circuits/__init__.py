"""Find, prove, edit and draw sparse feature circuits in Qwen language models.

    import circuits

    circuits.make_prompts("agreement_nounpp", 40, out="prompts.jsonl")
    analysis = circuits.open("bundled", "bundled", "prompts.jsonl", nodes=100)
    circuit = circuits.discover(analysis)
    circuits.verify(circuit)
    left = circuits.ablate(circuit, top=10, to="mean")
    circuits.compare(circuit, left)
    circuits.render(circuit, "graph.html", "circuit.pdf")

Every function is described, with an example, in `circuits.notebook`. What an edit file holds and
does, steering included, is `Edit` and `Operation`, put into a model by `applied`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.analysis import Analysis
    from circuits.edits.ablation import Ablation
    from circuits.edits.interventions import intervene
    from circuits.edits.make import edit
    from circuits.notebook import (
        ablate,
        ablated,
        compare,
        discover,
        make_prompts,
        open_run,
        render,
        sufficiency,
        train,
        verify,
    )
    from circuits.notebook import open_analysis as open
    from circuits.prompts import Prompt, read_prompts
    from circuits.results import Ablated, Circuit, Sufficiency, Verification
    from hooked_qwen.nodes import Node
    from saes.edit import Condition, Edit, Operation, applied

__all__ = [
    "Ablated",
    "Ablation",
    "Analysis",
    "Circuit",
    "Condition",
    "Edit",
    "Node",
    "Operation",
    "Prompt",
    "Sufficiency",
    "Verification",
    "ablate",
    "ablated",
    "applied",
    "compare",
    "discover",
    "edit",
    "intervene",
    "make_prompts",
    "open",
    "open_run",
    "read_prompts",
    "render",
    "sufficiency",
    "train",
    "verify",
]

_ELSEWHERE = {
    "Ablated": "circuits.results",
    "Circuit": "circuits.results",
    "Sufficiency": "circuits.results",
    "Verification": "circuits.results",
    "Ablation": "circuits.edits.ablation",
    "Analysis": "circuits.analysis",
    "Condition": "saes.edit",
    "Edit": "saes.edit",
    "Node": "hooked_qwen.nodes",
    "Operation": "saes.edit",
    "Prompt": "circuits.prompts",
    "applied": "saes.edit",
    "edit": "circuits.edits.make",
    "intervene": "circuits.edits.interventions",
    "read_prompts": "circuits.prompts",
}
_CALLED = {"open": "open_analysis"}


def __getattr__(name: str) -> Any:
    """Look a public name up when it is first used: `import circuits` alone loads no torch."""
    if name == "prompts":
        return import_module("circuits.prompts")
    if name not in __all__:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    module = import_module(_ELSEWHERE.get(name, "circuits.notebook"))
    return getattr(module, _CALLED.get(name, name))


def __dir__() -> list[str]:
    return __all__
