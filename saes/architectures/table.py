"""The architectures there are; a new one is a module with an `ARCHITECTURE`, and a row here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saes.architectures.architecture import Architecture

# Names of modules, read when first asked for: the command line lists the architectures without
# loading torch, and `saes.dictionary`, which the modules stand on, knows them too.
ARCHITECTURES: dict[str, str] = {
    "topk": "saes.architectures.topk",
    "batch-topk": "saes.architectures.batch_topk",
    "jumprelu": "saes.architectures.jumprelu",
    "relu": "saes.architectures.relu",
    "gated": "saes.architectures.gated",
    "matryoshka": "saes.architectures.matryoshka",
}


def architecture(name: str) -> "Architecture":
    """How dictionaries of this architecture are trained and folded."""
    return import_module(ARCHITECTURES[name]).ARCHITECTURE
