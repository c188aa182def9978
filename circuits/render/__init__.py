"""Pictures of circuits: the page, figures for papers, files for other programs.

A package cannot be a function as well, but this one can be called:

    circuits.render(circuit, "graph.html", "circuit.pdf")

is `circuits.notebook.render`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        # Found when it is called: drawing itself needs no model, and so no torch.
        return import_module("circuits.notebook").render(*args, **options)


sys.modules[__name__].__class__ = _Callable
