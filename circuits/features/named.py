"""What features are called where somebody looks at them: as people call them, else by what they
promote.
"""

from collections.abc import Iterable, Mapping

from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import promoted_labels
from hooked_qwen.nodes import Node
from saes.suite import Suite


class Named:
    """The labels of a suite's features; `names` are people's, by SITE/INDEX."""

    def __init__(self, model: TransformerBridge, suite: Suite, names: Mapping[str, str]) -> None:
        self._model, self._suite, self._names = model, suite, names

    def of(self, nodes: Iterable[Node]) -> dict[Node, str]:
        """The label of each of some features."""
        some = list(dict.fromkeys(nodes))
        unnamed = [node for node in some if key_of(node) not in self._names]
        made = promoted_labels(self._model, self._suite, unnamed)
        return {node: self.given(node) or made[node] for node in some}

    def given(self, node: Node) -> str:
        """What people call a feature; empty where they do not."""
        return self._names.get(key_of(node), "")


def key_of(node: Node) -> str:
    """SITE/INDEX, at any position."""
    return f"{node.site}/{node.feature}"
