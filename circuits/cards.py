"""What a feature is about: the tokens it promotes, where it fires most, and a name from both.

A card is plain JSON: `promoted` and `suppressed` tokens with scores, `examples` with one value a
token, `density` and `max_activation` over the text looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import Node, rounded
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, token_strings
from saes.dictionary import SparseDictionary
from saes.suite import Suite

Cards = dict[str, dict[str, Any]]
TOKENS = 8
EXAMPLES = 6
WINDOW = 16
"Tokens shown on either side of an example's strongest one."


def make_cards(
    model: TransformerBridge, suite: Suite, nodes: Iterable[Node], texts: Sequence[Batch]
) -> Cards:
    """A card for every feature among `nodes`, its examples taken from `texts`."""
    by_site: dict[Site, list[int]] = {}
    for node in nodes:
        if node.kind == "feature":
            by_site.setdefault(Site.parse(node.site), []).append(int(node.feature))
    seen = {site: _Examples(sorted(set(f))) for site, f in by_site.items()}
    for batch in texts:
        _collect(model, suite, seen, batch)
    return {
        f"{site}/{feature}": _logit_tokens(model, suite[site], feature)
        | found.card(i, model.tokenizer)
        for site, found in seen.items()
        for i, feature in enumerate(found.features)
    }


def prompt_texts(prompts: EncodedPrompts, *, batch_size: int = 32) -> list[Batch]:
    """The clean and patch prompts as text to look for examples in."""
    batches = [prompts.clean] + ([prompts.patch] if prompts.patch is not None else [])
    return [b.rows(index) for b in batches for index in torch.arange(len(b)).split(batch_size)]


def block_texts(blocks: Iterable[Tensor], *, batch_size: int = 16) -> list[Batch]:
    """Blocks of running text as batches."""
    rows = list(blocks)
    stacked = [torch.stack(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return [Batch(tokens=t, mask=torch.ones_like(t, dtype=torch.bool)) for t in stacked]


def name(card: Mapping[str, Any]) -> str:
    """A short name: the tokens on which the feature is strongest, then the one it promotes most."""
    peaks: list[str] = []
    for example in card["examples"]:
        token = example["tokens"][example["peak"]].strip()
        if token and token not in peaks:
            peaks.append(token)
    said = card["promoted"][0][0].strip() if card["promoted"] else ""
    read = " / ".join(peaks[:2]) or "silent"
    return f"{read} → {said}" if said else read


def _logit_tokens(
    model: TransformerBridge, dictionary: SparseDictionary, feature: int
) -> dict[str, Any]:
    """Tokens whose logits the feature's decoder row raises and lowers most, by the direct path.

    score_v = sum over d of W_dec[i, d] * gain[d] * W_U[d, v]        gain of the final norm
    """
    gain = model.ln_final.weight
    scores = (dictionary.W_dec[feature].to(gain) * gain) @ model.W_U
    scores = scores - scores.mean()

    def strongest(values: Float[Tensor, " vocabulary"], sign: int) -> list[list[Any]]:
        top = values.topk(TOKENS)
        names = token_strings(model.tokenizer, top.indices.tolist())
        return [[n, rounded(sign * float(v))] for n, v in zip(names, top.values, strict=True)]

    return {"promoted": strongest(scores, 1), "suppressed": strongest(-scores, -1)}


@dataclass
class _Examples:
    """The strongest contexts of some features of one site."""

    features: list[int]
    contexts: list[list[tuple[float, list[int], list[float], int]]] = field(init=False)
    fired: Tensor = field(init=False)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.contexts = [[] for _ in self.features]
        self.fired = torch.zeros(len(self.features))

    def add(self, f: Float[Tensor, "batch pos features"], batch: Batch) -> None:
        values = f[..., self.features] * batch.mask.unsqueeze(-1)
        self.fired += (values > 0).sum((0, 1))
        self.tokens += int(batch.mask.sum())
        peaks, at = values.max(1)
        for row, (peak, position) in enumerate(zip(peaks.tolist(), at.tolist(), strict=True)):
            for i, value in enumerate(peak):
                if value > 0:
                    self._keep(i, value, values[row, :, i], batch, row, position[i])

    def _keep(self, i: int, value: float, along: Tensor, batch: Batch, row: int, peak: int) -> None:
        kept = self.contexts[i]
        if len(kept) == EXAMPLES and value <= kept[-1][0]:
            return
        first = max(peak - WINDOW, int((~batch.mask[row]).sum()))
        window = slice(first, peak + WINDOW + 1)
        tokens = batch.tokens[row, window].tolist()
        if any(tokens == other for _, other, _, _ in kept):
            return
        kept.append((value, tokens, along[window].tolist(), peak - first))
        kept.sort(key=lambda context: -context[0])
        del kept[EXAMPLES:]

    def card(self, i: int, tokenizer: Any) -> dict[str, Any]:
        contexts = self.contexts[i]
        return {
            "density": rounded(float(self.fired[i]) / max(1, self.tokens)),
            "tokens_seen": self.tokens,
            "max_activation": rounded(contexts[0][0]) if contexts else None,
            "examples": [
                {
                    "tokens": token_strings(tokenizer, tokens),
                    "values": [float(f"{v:.3g}") for v in values],
                    "peak": peak,
                }
                for _, tokens, values, peak in contexts
            ],
        }


@torch.no_grad()
def _collect(
    model: TransformerBridge, suite: Suite, seen: Mapping[Site, _Examples], batch: Batch
) -> None:
    sources = {suite[site].source for site in seen}
    if not sources:
        return
    with capture(model, sources) as values:
        run_through(model, batch, max(site.layer for site in sources))
    for site, found in seen.items():
        found.add(suite[site].encode(values[suite[site].source]), batch)
