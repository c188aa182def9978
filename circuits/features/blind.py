"""A hypothesis about a feature, written before any text that it fires on was seen, and its test.

A blind case goes in two steps (`circuits.runs.blind`). First only weights are shown: what the
feature reads and writes. Then a hypothesis is written to a file and handed in; with it, and not
before, texts are shown and the hypothesis is tested. It may have a rule that says at which tokens
the feature is on:

    tokens     any of these tokens, as they are in the text (" are", with its space)
    pattern    a regular expression that the text up to and with the token ends in

The rule is held against where the feature is on in a text, and, as a control, against where random
features of the same dictionary are:

    precision        share of the rule's tokens at which the feature is on
    recall           share of the feature's tokens that the rule names
    recall_weighted  the same of the summed activation
    f1               2 precision recall / (precision + recall)

Source: Dunefsky et al. 2024, arXiv:2406.11944 (blind case studies). Differs: a rule that is tested.

Axes: `blocks` of text; `pos` their tokens; `features` the feature and the random ones.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.tokens import token_strings
from saes.dictionary import SparseDictionary
from saes.evaluation.bootstrap import ratio_interval
from saes.evaluation.splice import unpadded

RANDOM = 20
"Random features that a rule is also held against."
BLOCKS_PER_PASS = 8
AROUND = 12
"Tokens shown before and after that of an example."


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """What is believed of a feature."""

    text: str
    "in words"
    tokens: tuple[str, ...] = ()
    pattern: str | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("the hypothesis is empty: write down what the feature is about")
        if self.tokens and self.pattern is not None:
            raise ValueError("a hypothesis has tokens or a pattern for its rule, not both")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as problem:
                raise ValueError(
                    f"the pattern {self.pattern!r} is no regular expression: {problem}"
                ) from None

    @property
    def has_rule(self) -> bool:
        return bool(self.tokens) or self.pattern is not None

    def says(self, words: Sequence[str]) -> list[bool]:
        """At which tokens of a running text the rule says that the feature is on."""
        if self.pattern is None:
            return [word in self.tokens for word in words]
        ends, text = re.compile(f"(?:{self.pattern})\\Z"), ""
        found = []
        for word in words:
            text += word
            found.append(ends.search(text) is not None)
        return found

    def record(self) -> dict[str, Any]:
        """As a file holds it."""
        return asdict(self) | {"tokens": list(self.tokens)}


def read_hypothesis(path: Path) -> Hypothesis:
    """A hypothesis from a file: JSON with `text` and `tokens` or `pattern`, or text alone.

    Raises `ValueError` for anything else, and for one that is empty.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return Hypothesis(text=text.strip())
    try:
        found = json.loads(text)
    except ValueError as problem:
        raise ValueError(f"{path} is no JSON: {problem}") from None
    if not isinstance(found, Mapping) or not isinstance(found.get("text"), str):
        raise ValueError(f'{path} holds no hypothesis: expected {{"text": "...", "tokens": [...]}}')
    if unknown := sorted(set(found) - {"text", "tokens", "pattern"}):
        raise ValueError(
            f"{path} has {', '.join(unknown)}: a hypothesis has text, and tokens or pattern"
        )
    tokens = found.get("tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"tokens in {path} are {tokens!r}: expected a list of texts")
    return Hypothesis(text=found["text"], tokens=tuple(tokens), pattern=found.get("pattern"))


def rule_score(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    feature: int,
    hypothesis: Hypothesis,
    blocks: Int[Tensor, "blocks pos"],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The rule of a hypothesis against where a feature is on in a text, beside random features.

    Random ones are of the same dictionary, on somewhere in the text. Norm outliers count as any
    other token. Intervals are 95 % bootstrap percentiles over blocks.

    Raises `ValueError` for a hypothesis without a rule.
    """
    if not hypothesis.has_rule:
        raise ValueError("the hypothesis has no rule to test: give it tokens or a pattern")
    others = _random_features(model, dictionary, feature, blocks, seed)
    activation = _activations(model, dictionary, [feature, *others], blocks)
    says = torch.tensor(
        [hypothesis.says(token_strings(model.tokenizer, row)) for row in blocks.tolist()]
    )
    scores = [_score(says, activation[..., i]) for i in range(activation.shape[-1])]
    own, *rest = scores
    f1 = [score["f1"] for score in rest]
    return {
        "tokens": blocks.numel(),
        "named": int(says.sum()),
        "feature": own,
        "random": {
            "features": others,
            "f1": f1,
            "mean_f1": rounded(sum(f1) / len(f1)) if f1 else None,
            "best_f1": max(f1, default=None),
            "as_good": sum(score >= own["f1"] for score in f1),
        },
    }


def strongest_texts(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    feature: int,
    blocks: Int[Tensor, "blocks pos"],
    hypothesis: Hypothesis,
    k: int = 12,
) -> list[dict[str, Any]]:
    """Where in a text a feature is most active: `before`, `token`, `after`, `activation`.

    `named` says whether the rule of the hypothesis names the token, None without a rule.
    """
    activation = _activations(model, dictionary, [feature], blocks)[..., 0]
    value, at = activation.flatten().topk(min(k, activation.numel()))
    found = []
    for strength, place in zip(value.tolist(), at.tolist(), strict=True):
        if strength <= 0:
            break
        block, pos = divmod(place, blocks.shape[1])
        words = token_strings(model.tokenizer, blocks[block].tolist())
        found.append(
            {
                "before": "".join(words[max(0, pos - AROUND) : pos]),
                "token": words[pos],
                "after": "".join(words[pos + 1 : pos + 1 + AROUND]),
                "activation": rounded(strength),
                "named": hypothesis.says(words)[pos] if hypothesis.has_rule else None,
            }
        )
    return found


def _score(
    says: Bool[Tensor, "blocks pos"], activation: Float[Tensor, "blocks pos"]
) -> dict[str, Any]:
    is_on = activation > 0
    hit, weighted = is_on & says, activation.double() * says
    counts = {"hit": hit, "says": says, "on": is_on}
    by_block = {name: mask.double().sum(1) for name, mask in counts.items()}
    hits, named, on = (float(by_block[name].sum()) for name in ("hit", "says", "on"))
    strength = float(activation.double().sum())
    return {
        "on": int(on),
        "precision": rounded(hits / named) if named else None,
        "precision_interval": ratio_interval(by_block["hit"], by_block["says"]),
        "recall": rounded(hits / on) if on else None,
        "recall_interval": ratio_interval(by_block["hit"], by_block["on"]),
        "recall_weighted": rounded(float(weighted.sum()) / strength) if strength else None,
        "f1": rounded(2 * hits / (named + on)) if named + on else 0.0,
    }


@torch.no_grad()
def _encoded(model: TransformerBridge, dictionary: SparseDictionary, blocks: Tensor) -> Any:
    """The dictionary's features on some blocks at a time."""
    last = max(site.layer for site in dictionary.reads)
    for tokens in blocks.split(BLOCKS_PER_PASS):
        with capture(model, set(dictionary.reads)) as values:
            run_through(model, unpadded(tokens), last)
        yield dictionary.encode(dictionary.read(values))


def _activations(
    model: TransformerBridge, dictionary: SparseDictionary, features: Sequence[int], blocks: Tensor
) -> Float[Tensor, "blocks pos features"]:
    chosen = torch.tensor(list(features), device=dictionary.W_dec.device)
    return torch.cat([f.of(chosen).cpu() for f in _encoded(model, dictionary, blocks)])


def _random_features(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    feature: int,
    blocks: Tensor,
    seed: int,
) -> list[int]:
    seen = torch.zeros(dictionary.n_features, dtype=torch.bool, device=dictionary.W_dec.device)
    for f in _encoded(model, dictionary, blocks):
        seen[f.index[f.value != 0]] = True
    seen[feature] = False
    there = seen.nonzero().flatten().cpu()
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))
    return sorted(there[order[:RANDOM]].tolist())
