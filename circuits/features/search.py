"""Features of a suite that are looked for: by two sets of texts, in a text, by a token, by a label.

Each search gives one strict JSON record of schema `feature-search/1`; `how` says which it is.
Features are SITE/INDEX, with their `label` as everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import logit_scores
from circuits.features.named import Named, key_of
from circuits.features.strips import ON_A_TOKEN, read_text
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode, token_strings
from saes.scope.activity import LONGEST, activity_of
from saes.scope.contrast import SHUFFLES, RankedBy, contrast
from saes.suite import Suite

SCHEMA = "feature-search/1"


def by_contrast(
    model: TransformerBridge,
    suite: Suite,
    positive: Sequence[str],
    negative: Sequence[str],
    named: Named,
    *,
    by: RankedBy = "share",
    top: int = 20,
    seed: int = 0,
    longest: int = LONGEST,
    report: Report = silent,
) -> dict[str, Any]:
    """The features whose activity differs most between two sets of texts, `saes.scope.contrast`."""
    activity = activity_of(model, suite, [*positive, *negative], longest=longest, report=report)
    of_first = torch.arange(len(activity)) < len(positive)
    search = contrast(activity, of_first, by=by, top=top, seed=seed)
    labels = named.of(one.node for one in search.found)
    return {
        "schema": SCHEMA,
        "how": "contrast",
        "by": search.by,
        "texts": {"positive": len(positive), "negative": len(negative)},
        "texts_cut": int(activity.was_cut.sum()),
        "longest": longest,
        "features_on": search.features_on,
        "chance": rounded(search.chance),
        "shuffles": SHUFFLES,
        "found": [
            {
                "feature": key_of(one.node),
                "label": labels[one.node],
                **{name: _rounded(value) for name, value in asdict(one).items() if name != "node"},
            }
            for one in search.found
        ],
    }


def _rounded(value: Any) -> Any:
    return [rounded(v) for v in value] if isinstance(value, tuple | list) else rounded(value)


def in_text(
    model: TransformerBridge,
    suite: Suite,
    text: str,
    named: Named,
    *,
    on_a_token: int = ON_A_TOKEN,
) -> dict[str, Any]:
    """The features that write most at each token of a text, as `read_text` finds them.

    Raises `ValueError` for a text without tokens.
    """
    read = read_text(model, suite, text, on_a_token=on_a_token)
    labels = named.of(node for row in read.tops for node, _ in row)
    tokens = zip(token_strings(model.tokenizer, read.ids), read.tops, strict=True)
    return {
        "schema": SCHEMA,
        "how": "text",
        "tokens": [
            {
                "token": token,
                "features": [
                    {"feature": key_of(node), "label": labels[node], "activation": rounded(a)}
                    for node, a in row
                ],
            }
            for token, row in tokens
        ],
    }


@torch.no_grad()
def by_token(
    model: TransformerBridge, suite: Suite, token: str, named: Named, *, top: int = 20
) -> dict[str, Any]:
    """The features that raise a token's logit most by the direct path, as in a card.

    Raises `ValueError` for what is not one token.
    """
    ids = encode(model.tokenizer, token)
    if len(ids) != 1:
        pieces = ", ".join(map(repr, token_strings(model.tokenizer, ids))) or "none"
        raise ValueError(
            f"{token!r} is {len(ids)} tokens ({pieces}): give one, most words with a space before"
        )
    found: list[tuple[float, Node]] = []
    fitted = suite.fitting(model)
    for name in fitted:
        scores: Float[Tensor, " features"] = logit_scores(model, fitted[name], ids[0])
        best = scores.topk(min(top, len(scores)))
        ranked = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        found += [(score, Node(name, i)) for score, i in ranked]
        found = sorted(found, key=lambda pair: -pair[0])[:top]
    labels = named.of(node for _, node in found)
    return {
        "schema": SCHEMA,
        "how": "token",
        "token": token,
        "found": [
            {"feature": key_of(node), "label": labels[node], "logits": rounded(score)}
            for score, node in found
        ],
    }


def by_label(names: Mapping[str, str], words: str, *, top: int = 20) -> dict[str, Any]:
    """The features whose label, given by people or models, holds all of some words.

    Raises `ValueError` where no feature has a label.
    """
    if not names:
        raise ValueError("no feature has a label here: `circuits labels` brings some in")
    wanted = words.casefold().split()
    found = [
        {"feature": key, "label": text}
        for key, text in sorted(names.items())
        if all(word in text.casefold() for word in wanted)
    ]
    return {
        "schema": SCHEMA,
        "how": "label",
        "words": words,
        "labels": len(names),
        "holding_all": len(found),
        "found": found[:top],
    }
