"""Cards of a detector's features: what each promotes, and where in its own texts it fires.

    {"promoted": [[token, score], ...], "suppressed": [...],
     "on": {"positive": .9, "negative": .05},
     "examples": [{"text": "The <<boys>> sit.", "positive": true, "activation": 14.2}, ...]}

`on` has the shares of the texts that features were chosen on. Examples are those of these texts in
which the feature is strongest, whatever their label: `AROUND` tokens either side of its strongest
one, those marked at which it is on with `MARKED` of that at least. Norm outliers do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.asking import marked_text
from circuits.features.card import logit_tokens
from circuits.graph import rounded
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import by_length, encode_prompt
from hooked_qwen.transfer import to_host
from saes.evaluation.splice import unpadded
from saes.scope.activity import LONGEST, TOKENS_PER_PASS, Activity
from saes.scope.held_out import Passage
from saes.suite import Suite

EXAMPLES = 3
AROUND = 12
MARKED = 0.3
"Of the largest activation: from there on a token is marked."


@dataclass(frozen=True, kw_only=True)
class ChosenOn:
    """The texts that features were chosen on."""

    texts: Sequence[str]
    positive: Bool[Tensor, " texts"]
    activity: Activity

    def strongest(self, node: Node) -> list[int]:
        """Numbers of the texts in which a feature is strongest, each wording once."""
        entries = (self.activity.feature == self.activity.number(node)).nonzero().flatten()
        value = self.activity.largest[entries]
        order = entries[value.argsort(descending=True, stable=True)][: int((value > 0).sum())]
        once: dict[str, int] = {}
        for i in map(int, self.activity.text[order].tolist()):
            once.setdefault(self.texts[i], i)
        return list(once.values())[:EXAMPLES]

    def shares(self, node: Node) -> dict[str, float | None]:
        """The share of the texts of each kind in which a feature is on."""
        of = self.activity.feature == self.activity.number(node)
        on = torch.zeros(len(self.positive)).index_fill_(0, self.activity.text[of], 1.0)
        kinds = {"positive": self.positive, "negative": ~self.positive}
        return {name: rounded(float(on[kind].mean())) for name, kind in kinds.items()}


def detector_cards(
    model: TransformerBridge, suite: Suite, nodes: Sequence[Node], chosen_on: ChosenOn
) -> dict[Node, dict[str, Any]]:
    """The card of each feature; of the texts only those that a card shows are read again."""
    shown = {node: chosen_on.strongest(node) for node in nodes}
    texts = sorted({i for some in shown.values() for i in some})
    tokens = {i: encode_prompt(model.tokenizer, chosen_on.texts[i])[:LONGEST] for i in texts}
    values = _activations(model, suite, shown, tokens)
    cards: dict[Node, dict[str, Any]] = {}
    for node, some in shown.items():
        said = logit_tokens(model, suite[node.site], [int(node.feature)])
        cards[node] = said.fields(0, model.tokenizer) | {
            "on": chosen_on.shares(node),
            "examples": [
                _example(tokens[i], values[node, i], model.tokenizer)
                | {"positive": bool(chosen_on.positive[i])}
                for i in some
            ],
        }
    return cards


@torch.no_grad()
def _activations(
    model: TransformerBridge,
    suite: Suite,
    shown: Mapping[Node, Sequence[int]],
    tokens: Mapping[int, Sequence[int]],
) -> dict[tuple[Node, int], Float[Tensor, " pos"]]:
    """Of each feature and text that is shown of it, its activation at every token."""
    suite, numbers = suite.fitting(model), list(tokens)
    read = {site for node in shown for site in suite.reads_of(node.site)}
    found: dict[tuple[Node, int], Tensor] = {}
    for index, ids in by_length(list(tokens.values()), TOKENS_PER_PASS // LONGEST):
        with capture(model, read) as seen:
            run_through(model, unpadded(ids), max(site.layer for site in read))
        rows = {numbers[place]: row for row, place in enumerate(index)}
        for node, some in shown.items():
            if here := [i for i in some if i in rows]:
                x = suite.read(node.site, seen)
                (f,) = suite[node.site].encode(x).of_each([int(node.feature)])
                counted = f * (mean_weights(x, torch.ones_like(x[..., 0], dtype=torch.bool)) > 0)
                found |= {(node, i): counted[rows[i]] for i in here}
    return dict(zip(found, to_host(list(found.values())), strict=True))


def _example(
    tokens: Sequence[int], values: Float[Tensor, " pos"], tokenizer: Any
) -> dict[str, Any]:
    """The tokens about the strongest one on a line, marked."""
    peak = int(values.argmax())
    first, last = max(0, peak - AROUND), peak + AROUND + 1
    near = values[first:last]
    passage = Passage(tuple(tokens[first:last]), near, near >= MARKED * values[peak], None)
    text = marked_text(passage, tokenizer, marks=True)
    return {"text": text, "activation": rounded(float(values[peak]))}
