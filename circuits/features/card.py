"""What a feature is about: the tokens it promotes, and where it fires most.

A card is plain JSON: `promoted` and `suppressed` tokens with scores, `examples` with one value a
token, `density` and `max_activation` over the text looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.names import short_name
from circuits.graph import Node, rounded
from circuits.prompts import EncodedPrompts
from hooked_qwen.precision import widened
from hooked_qwen.tokens import Batch, token_strings
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary
from saes.examples.collect import Example, Examples, find_examples
from saes.on_demand import OnDemand
from saes.suite import Suite

Cards = dict[str, dict[str, Any]]
TOKENS = 8
EXAMPLES = 6
FEATURES_AT_ONCE = 256
"Rows unembedded together: 160 MB of scores over Qwen's vocabulary."


@dataclass(frozen=True)
class LogitTokens:
    """Tokens that features promote and suppress most, strongest first."""

    promoted: Int[Tensor, "features tokens"]
    promoted_scores: Float[Tensor, "features tokens"]
    suppressed: Int[Tensor, "features tokens"]
    suppressed_scores: Float[Tensor, "features tokens"]

    def fields(self, i: int, tokenizer: Any) -> dict[str, list[list[Any]]]:
        """Both lists of the `i`-th feature, as a card has them."""

        def pairs(ids: Tensor, scores: Tensor) -> list[list[Any]]:
            names = token_strings(tokenizer, ids[i].tolist())
            return [[n, rounded(v)] for n, v in zip(names, scores[i].tolist(), strict=True)]

        return {
            "promoted": pairs(self.promoted, self.promoted_scores),
            "suppressed": pairs(self.suppressed, self.suppressed_scores),
        }


def make_cards(
    model: TransformerBridge, suite: Suite, nodes: Iterable[Node], texts: Sequence[Batch]
) -> Cards:
    """A card for every feature among `nodes`, its examples taken from `texts`."""
    by_name: dict[str, set[int]] = {}
    for node in nodes:
        if node.kind == "feature":
            by_name.setdefault(node.site, set()).add(int(node.feature))
    wanted = [sorted(features) for features in by_name.values()]
    opened = OnDemand(suite, list(by_name))
    found = find_examples(model, opened, wanted, texts, top=EXAMPLES)
    cards: Cards = {}
    for site, features, examples in zip(by_name, wanted, found, strict=True):
        tokens = logit_tokens(model, suite[site], features)
        for i, feature in enumerate(features):
            said = tokens.fields(i, model.tokenizer)
            cards[f"{site}/{feature}"] = said | example_fields(examples, i, model.tokenizer)
    return cards


def prompt_texts(prompts: EncodedPrompts, *, batch_size: int = 32) -> list[Batch]:
    """The clean and patch prompts as text to look for examples in."""
    batches = [prompts.clean] + ([prompts.patch] if prompts.patch is not None else [])
    return [b.rows(index) for b in batches for index in torch.arange(len(b)).split(batch_size)]


def block_texts(blocks: Iterable[Tensor], *, batch_size: int = 16) -> list[Batch]:
    """Blocks of running text as batches."""
    rows = list(blocks)
    stacked = [torch.stack(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return [Batch(tokens=t, mask=torch.ones_like(t, dtype=torch.bool)) for t in stacked]


def promoted_labels(
    model: TransformerBridge, suite: Suite, nodes: Iterable[Node]
) -> dict[Node, str]:
    """A label for every feature among `nodes` that needs no text, from what it promotes.

    `SITE/FEATURE` where the model has no tokenizer.
    """
    by_name: dict[str, list[Node]] = {}
    for node in nodes:
        if node.kind == "feature":
            by_name.setdefault(node.site, []).append(node)
    if getattr(model, "tokenizer", None) is None:
        return {n: f"{n.site}/{n.feature}" for members in by_name.values() for n in members}
    chosen = {name: sorted({int(n.feature) for n in members}) for name, members in by_name.items()}
    scores = [_scored(model, suite[name], features) for name, features in chosen.items()]
    # Read in one go: each look makes the host wait for the device.
    ids = iter(torch.cat([found[0] for found in scores]).tolist() if scores else [])
    said = {
        (name, feature): short_name(None, token_strings(model.tokenizer, next(ids)))
        for name, features in chosen.items()
        for feature in features
    }
    return {
        node: said[name, int(node.feature)] for name, members in by_name.items() for node in members
    }


@torch.no_grad()
def logit_tokens(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    features: Sequence[int],
    *,
    tokens: int = TOKENS,
) -> LogitTokens:
    """Tokens whose logits decoder rows raise and lower most, by the direct path.

        score_v = sum over d of W_dec[i, d] * gain[d] * W_U[d, v], minus its mean over v

    Units are logits per unit of activation where the final norm divides by 1. The gain is what
    the final norm makes of a vector of ones, as families differ in how they store it. Rows of the
    vocabulary that are no token of the tokenizer, such as padding to a round number, are left out.
    """
    return LogitTokens(*to_host(_scored(model, dictionary, features, tokens)))


@torch.no_grad()
def _scored(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    features: Sequence[int],
    tokens: int = TOKENS,
) -> list[Tensor]:
    """Promoted tokens and their scores, suppressed ones and theirs, on the device."""
    device = dictionary.W_dec.device
    gain, W_U = _last_gain(model), widened(model.W_U)
    known = len(model.tokenizer) if model.tokenizer is not None else W_U.shape[1]
    size = min(tokens, known, W_U.shape[1])

    def scored() -> Iterator[tuple[Tensor, ...]]:
        every = torch.tensor(list(features), dtype=torch.int64, device=device)
        for chosen in every.split(FEATURES_AT_ONCE):
            # All that a feature writes goes into the stream.
            written = sum(dictionary.by_site(dictionary.W_dec[chosen].to(gain)).values())
            scores = ((written * gain) @ W_U).float()
            scores = (scores - scores.mean(-1, keepdim=True))[:, :known]
            high, low = scores.topk(size), scores.topk(size, largest=False)
            yield high.indices, high.values, low.indices, low.values

    return [torch.cat(parts) for parts in zip(*scored(), strict=True)]


def _last_gain(model: TransformerBridge) -> Float[Tensor, " d_model"]:
    ones = torch.ones(1, 1, len(model.W_U), dtype=model.W_U.dtype, device=model.W_U.device)
    return widened(model.ln_final(ones)[0, 0])


@torch.no_grad()
def logit_scores(
    model: TransformerBridge, dictionary: SparseDictionary, token: int
) -> Float[Tensor, " features"]:
    """What every feature adds to the logit of one token, as `logit_tokens` scores it."""
    gain, W_U = _last_gain(model), widened(model.W_U)
    reads = gain * (W_U[:, token] - W_U.mean(-1))
    written = dictionary.by_site(dictionary.W_dec.to(gain))
    return torch.stack([y @ reads for y in written.values()]).sum(0).float()


def example_fields(examples: Examples, i: int, tokenizer: Any) -> dict[str, Any]:
    """What a card says of where the `i`-th feature of `examples` fires."""
    return {
        "density": rounded(examples.density(i)),
        "tokens_seen": examples.tokens,
        "max_activation": rounded(examples.largest(i)),
        "examples": [as_record(e, tokenizer) for e in examples.of(i, examples.top)],
        "histogram": examples.histogram(i),
    }


def as_record(example: Example, tokenizer: Any) -> dict[str, Any]:
    """One example as a card holds it: a text and a value for each token, three digits each."""
    return {
        "tokens": token_strings(tokenizer, example.tokens),
        "values": [float(f"{value:.3g}") for value in example.values],
        "peak": example.peak,
    }
