"""Everything known about one feature of a suite, as one strict JSON record.

feature                 SITE/INDEX, such as mlp_out.3/812; `dictionary` and `index` apart
label                   a name made from the card (circuits.features.card)
density, max_activation, tokens_seen, promoted, suppressed, examples    as on every card
sampled                 passages drawn from all positions where the feature is active
nearest                 features by cosine: decoder and encoder rows of the same dictionary,
                        and the best match by decoder row in each other layer's dictionary
                        of the same kind
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import as_record, example_fields, logit_tokens, name
from circuits.graph import rounded
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary
from saes.examples.store import Store

SCHEMA = "feature-card/1"
NEAREST = 5
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nearest:
    """For each row, the rows of another matrix that point most nearly the same way."""

    index: Int[Tensor, "rows nearest"]
    cosine: Float[Tensor, "rows nearest"]


def find_feature(
    text: str, dictionaries: Sequence[SparseDictionary]
) -> tuple[SparseDictionary, int]:
    """The dictionary and index that `text` names, such as 'mlp_out.3/812'.

    A dictionary goes by its own name, or by its target site where only one writes there.

    Raises `ValueError` listing the dictionaries, or saying how many features there are.
    """
    called, _, index = text.partition("/")
    found = [d for d in dictionaries if d.spec.name == called]
    found = found or [d for d in dictionaries if str(d.target) == called]
    if len(found) != 1 or not index.isdecimal():
        names = ", ".join(d.spec.name for d in dictionaries)
        raise ValueError(
            f"no feature is called {text!r}: write DICTIONARY/INDEX, such as 'mlp_out.3/812', "
            f"where DICTIONARY is one of {names}"
        )
    if int(index) >= found[0].n_features:
        raise ValueError(f"{called} has features 0 to {found[0].n_features - 1}, not {index}")
    return found[0], int(index)


def feature_card(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    store: Store,
    feature: str,
) -> dict[str, Any]:
    """The card of `feature`, neighbours among `dictionaries` included.

    Raises `ValueError` when there is no such feature, or `store` is of other dictionaries.
    """
    dictionary, index = find_feature(feature, dictionaries)
    spec = dictionary.spec
    return {
        "schema": SCHEMA,
        "feature": f"{spec.name}/{index}",
        "dictionary": spec.name,
        "index": index,
        "source": str(spec.source),
        "target": str(spec.target),
        "architecture": spec.architecture,
        "features": dictionary.n_features,
        "model": model.cfg.model_name,
        **_cards(model, dictionary, [index], store)[0],
        "nearest": {
            "decoder": _named(model, dictionary, by_decoder(dictionary, [index]), store),
            "encoder": _named(model, dictionary, by_encoder(dictionary, [index]), store),
            "layers": [
                match
                for other in siblings(dictionary, dictionaries)
                for match in _named(model, other, across(dictionary, [index], other), store)
            ],
        },
    }


def by_decoder(dictionary: SparseDictionary, features: Sequence[int]) -> Nearest:
    """Features of the same dictionary that write most nearly the same direction."""
    return _nearest(dictionary.W_dec, torch.tensor(list(features)), dictionary.W_dec, NEAREST)


def by_encoder(dictionary: SparseDictionary, features: Sequence[int]) -> Nearest:
    """Features of the same dictionary that read most nearly the same direction."""
    return _nearest(dictionary.W_enc, torch.tensor(list(features)), dictionary.W_enc, NEAREST)


def across(
    dictionary: SparseDictionary, features: Sequence[int], other: SparseDictionary
) -> Nearest:
    """The feature of another layer's dictionary that writes most nearly the same direction."""
    return _nearest(dictionary.W_dec, torch.tensor(list(features)), other.W_dec, 1)


def siblings(
    dictionary: SparseDictionary, dictionaries: Sequence[SparseDictionary]
) -> list[SparseDictionary]:
    """Dictionaries of the same kinds of site in other layers, in the order of the layers."""

    def kinds(d: SparseDictionary) -> tuple[str, str]:
        return d.source.kind, d.target.kind

    same = [d for d in dictionaries if kinds(d) == kinds(dictionary)]
    return sorted((d for d in same if d.target != dictionary.target), key=lambda d: d.target)


def _nearest(
    rows: Float[Tensor, "rows d"],
    chosen: Int[Tensor, " chosen"],
    among: Float[Tensor, "others d"],
    count: int,
) -> Nearest:
    """cosine(rows_i, among_j) for each chosen i, largest first; i itself does not count."""
    others = F.normalize(among, dim=-1)
    found = []
    for some in chosen.to(rows.device).split(ROWS_AT_ONCE):
        cosine = F.normalize(rows[some], dim=-1) @ others.T
        if among is rows:
            cosine = cosine.scatter(1, some[:, None], -torch.inf)
        found.append(cosine.topk(min(count, len(others) - (among is rows))))
    both = torch.cat([top.indices for top in found]), torch.cat([top.values for top in found])
    return Nearest(*to_host(both))


def _cards(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    features: Sequence[int],
    store: Store,
) -> list[dict[str, Any]]:
    """Cards without neighbours, each with its label."""
    examples = store.examples(dictionary)
    said = logit_tokens(model, dictionary, features)
    cards = []
    for i, feature in enumerate(features):
        card = said.fields(i, model.tokenizer) | example_fields(examples, feature, model.tokenizer)
        sampled = examples.of(feature, examples.sampled)
        card["sampled"] = [as_record(example, model.tokenizer) for example in sampled]
        cards.append({"label": name(card)} | card)
    return cards


def _named(
    model: TransformerBridge, dictionary: SparseDictionary, nearest: Nearest, store: Store
) -> list[dict[str, Any]]:
    """The neighbours of one feature, with their labels."""
    (features,), (cosines,) = nearest.index.tolist(), nearest.cosine.tolist()
    cards = _cards(model, dictionary, features, store)
    return [
        {
            "feature": f"{dictionary.spec.name}/{feature}",
            "label": card["label"],
            "cosine": rounded(cosine),
        }
        for feature, cosine, card in zip(features, cosines, cards, strict=True)
    ]
