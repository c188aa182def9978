"""Everything known about one feature of a suite, as one strict JSON record.

feature                 SITE/INDEX, such as mlp_out.3/812; `dictionary` and `index` apart
label                   a name made from the card (circuits.features.names)
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

from circuits.features.card import as_record, example_fields, logit_tokens
from circuits.features.names import name_of_card
from circuits.graph import rounded
from hooked_qwen.transfer import to_host
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.examples.store import Store
from saes.on_demand import InTurn, each

SCHEMA = "feature-card/1"
NEAREST = 5
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nearest:
    """For each row, the rows of another matrix that point most nearly the same way."""

    index: Int[Tensor, "rows nearest"]
    cosine: Float[Tensor, "rows nearest"]


def find_feature(text: str, dictionaries: InTurn) -> tuple[int, int]:
    """Which of the dictionaries and which index `text` names, such as 'mlp_out.3/812'.

    A dictionary goes by its own name, or by its target site where only one writes there.

    Raises `ValueError` listing the dictionaries, or saying how many features there are.
    """
    called, _, index = text.partition("/")
    specs = each(dictionaries, lambda d: d.spec)
    found = [i for i, spec in enumerate(specs) if spec.name == called]
    found = found or [i for i, spec in enumerate(specs) if str(spec.target) == called]
    if len(found) != 1 or not index.isdecimal():
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(
            f"no feature is called {text!r}: write DICTIONARY/INDEX, such as 'mlp_out.3/812', "
            f"where DICTIONARY is one of {names}"
        )
    if int(index) >= (n := dictionaries[found[0]].n_features):
        raise ValueError(f"{called} has features 0 to {n - 1}, not {index}")
    return found[0], int(index)


def feature_card(
    model: TransformerBridge,
    dictionaries: InTurn,
    store: Store,
    feature: str,
) -> dict[str, Any]:
    """The card of `feature`, neighbours among `dictionaries` included.

    Raises `ValueError` when there is no such feature, or `store` is of other dictionaries.
    """
    place, index = find_feature(feature, dictionaries)
    card = _own_card(model, dictionaries[place], store, index)
    written = dictionaries[place].W_dec[[index]]
    card["nearest"]["layers"] = [
        match
        for other in siblings(place, each(dictionaries, lambda d: d.spec))
        for match in _match(model, dictionaries[other], written, store)
    ]
    return card


def _own_card(
    model: TransformerBridge, dictionary: SparseDictionary, store: Store, index: int
) -> dict[str, Any]:
    """What is known of a feature without other dictionaries."""
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
        },
    }


def _match(
    model: TransformerBridge, other: SparseDictionary, written: Tensor, store: Store
) -> list[dict[str, Any]]:
    return _named(model, other, across(written, other), store)


def by_decoder(dictionary: SparseDictionary, features: Sequence[int]) -> Nearest:
    """Features of the same dictionary that write most nearly the same direction."""
    return _nearest(dictionary.W_dec, torch.tensor(list(features)), dictionary.W_dec, NEAREST)


def by_encoder(dictionary: SparseDictionary, features: Sequence[int]) -> Nearest:
    """Features of the same dictionary that read most nearly the same direction."""
    return _nearest(dictionary.W_enc, torch.tensor(list(features)), dictionary.W_enc, NEAREST)


def across(written: Float[Tensor, "rows d"], other: SparseDictionary) -> Nearest:
    """The features of another layer's dictionary that write most nearly the same directions."""
    return _nearest(written, torch.arange(len(written)), other.W_dec, 1)


def siblings(place: int, specs: Sequence[DictionarySpec]) -> list[int]:
    """Which dictionaries are of the same kinds of site in other layers, in the order of these."""

    def kinds(spec: DictionarySpec) -> tuple[str, str]:
        return spec.source.kind, spec.target.kind

    own = specs[place]
    same = [i for i, spec in enumerate(specs) if kinds(spec) == kinds(own)]
    others = (i for i in same if specs[i].target != own.target)
    return sorted(others, key=lambda i: specs[i].target)


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
        cards.append({"label": name_of_card(card)} | card)
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
