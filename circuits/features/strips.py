"""Texts token by token: what is on at each, and how strongly some features are.

    {"kind": "positive",
     "runs": [{"text": "复", "first": 3, "pieces": ["<0xE5>", "<0xA4><0x8D>"]}, ...],
     "tops": [[["resid_post.3/86", 21.7], ...], ...],     of each token, most written first
     "on": {"resid_post.3/86": [[1, 21.7], ...]}}         of each feature that is shown, by token

A run is the tokens of whole characters together (`hooked_qwen.tokens.whole_characters`): one
Chinese character may be several tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.named import Named, key_of
from circuits.graph import rounded
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.tokens import encode_prompt, token_strings, whole_characters
from hooked_qwen.transfer import to_host
from saes.evaluation.splice import unpadded
from saes.features import Features
from saes.suite import Suite

ON_A_TOKEN = 5
"Features that are shown of each token of a text."
LONGEST = 160
"Tokens of a text that are shown beside others."


@dataclass(frozen=True)
class TextFeatures:
    """One text as the dictionaries read it."""

    ids: list[int]
    tops: list[list[tuple[Node, float]]]
    "features and their activations at each token, by what they write"
    features: Mapping[str, Features]
    "all that is on, by dictionary"

    def on(self, nodes: Sequence[Node]) -> dict[Node, list[tuple[int, float]]]:
        """Of each of some features that is on, at which tokens and how strongly."""
        wanted, found = set(nodes), {}
        for name, f in self.features.items():
            at, slot = f.value.nonzero(as_tuple=True)
            entries = at.tolist(), f.index[at, slot].tolist(), f.value[at, slot].tolist()
            for token, index, value in zip(*entries, strict=True):
                if (node := Node(name, index)) in wanted:
                    found.setdefault(node, []).append((token, value))
        return found


@torch.no_grad()
def read_text(
    model: TransformerBridge,
    suite: Suite,
    text: str,
    *,
    on_a_token: int = ON_A_TOKEN,
    longest: int | None = None,
) -> TextFeatures:
    """What is on in a text, and the features that write most at each token.

    Largest by |activation| times the norm of the decoder row, in every dictionary together.

    Raises `ValueError` for a text without tokens.
    """
    ids = encode_prompt(model.tokenizer, text)[:longest]
    if not ids:
        raise ValueError("the text has no tokens")
    suite = suite.fitting(model)
    read = {site for name in suite for site in suite.reads_of(name)}
    with capture(model, read) as seen:
        run_through(model, unpadded(torch.tensor([ids])), max(0, *(s.layer for s in read)))
    found: list[list[tuple[float, float, Node]]] = [[] for _ in ids]
    features: dict[str, Features] = {}
    for name in suite:
        f = suite[name].encode(suite.read(name, seen)).coalesced()
        size = (f.value.abs() * suite[name].W_dec.norm(dim=-1)[f.index])[0]
        best = size.topk(min(on_a_token, size.shape[1]), dim=-1)
        value, index = (x[0].gather(-1, best.indices) for x in (f.value, f.index))
        rows = zip(best.values.tolist(), value.tolist(), index.tolist(), strict=True)
        for of_token, row in zip(found, rows, strict=True):
            written = zip(*row, strict=True)
            of_token += [(size, a, Node(name, i)) for size, a, i in written if size > 0]
        index, value = to_host([f.index[0], f.value[0]])
        features[name] = Features(index, value, f.width)
    kept = [sorted(row, key=lambda one: -one[0])[:on_a_token] for row in found]
    return TextFeatures(ids, [[(node, a) for _, a, node in row] for row in kept], features)


def strips(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[tuple[str, str]],
    asked: Sequence[Node],
    named: Named,
    *,
    longest: int | None = LONGEST,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Texts, each with its kind before it, as a page shows them; and the labels of their features.

    Where they are on is told of the features `asked` for, and of those that a token shows.
    """
    reads = [read_text(model, suite, text, longest=longest) for _, text in texts]
    also = list(dict.fromkeys(node for read in reads for row in read.tops for node, _ in row))
    shown = list(dict.fromkeys([*asked, *also]))
    labels = named.of(shown)
    return [
        {
            "kind": kind,
            "runs": [
                {
                    "text": run.text,
                    "first": run.first,
                    "pieces": token_strings(model.tokenizer, read.ids[run.first : run.stop]),
                }
                for run in whole_characters(model.tokenizer, read.ids)
            ],
            "tops": [[[key_of(node), rounded(a)] for node, a in row] for row in read.tops],
            "on": {
                key_of(node): [[at, rounded(a)] for at, a in where]
                for node, where in read.on(shown).items()
            },
        }
        for (kind, _), read in zip(texts, reads, strict=True)
    ], {key_of(node): label for node, label in labels.items()}
