"""Every feature of a suite in one record, for a page that searches them all.

Texts go once into `vocabulary`, and numbers into arrays: a page of thousands of features weighs
little. Features count through all dictionaries, in their order.

    density, largest        [features]
    row, position           [features, examples], into `tokens` [rows, pos]; the strongest `top`
                            come first, then the sampled ones; row is the number of rows where
                            there is none
    activation              [features, examples] in 65535ths of the feature's largest
    window                  [features, examples, shown] in 255ths of it, negative values as zero
    histogram               [features, steps] tokens by activation, from the step that the record's
                            `histogram` says on; not in records of stores without histograms
    promoted, suppressed    [features, tokens], with scores in 1 / `score_steps`
    decoder, encoder        [features, nearest] features, with cosines in 1 / `cosine_steps`;
    layers                  [features, other layers] likewise, `features` where there is none
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import LogitTokens, logit_tokens
from circuits.features.names import short_name
from circuits.features.neighbours import NEAREST, Nearest, across, by_decoder, by_encoder, siblings
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import token_strings
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.examples.collect import EMPTY, STEPS, WINDOW, Examples
from saes.examples.histogram import LOWEST, PER_DOUBLING
from saes.examples.store import Store
from saes.on_demand import InTurn, each

SCHEMA = "feature-suite/1"
MAX_FEATURES = 50_000
COSINE_STEPS = 10_000
SCORE_RANGE = 32_767


def suite_record(
    model: TransformerBridge,
    dictionaries: InTurn,
    store: Store,
    quality: Mapping[str, Mapping[str, Any]],
    *,
    most: int = MAX_FEATURES,
    report: Report = silent,
) -> dict[str, Any]:
    """The record of `dictionaries`; `quality` has what is known of each by name.

    Raises `ValueError` over `most` features, or when `store` is of other dictionaries.
    """
    sizes = each(dictionaries, lambda d: d.n_features)
    specs, total = each(dictionaries, lambda d: d.spec), sum(sizes)
    if total > most:
        raise ValueError(
            f"a page holds at most {most:,} features, these dictionaries have {total:,}: "
            "choose some of them"
        )
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = []
    for place in range(len(dictionaries)):
        report("features", place, len(dictionaries))
        own = _own_arrays(model, dictionaries[place], firsts[place], total, store)
        parts.append(own | _layer_arrays(dictionaries, place, specs, firsts, total))
    report("features", len(dictionaries), len(dictionaries))
    arrays = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    arrays["tokens"], arrays["row"] = _rows_used(store.blocks, arrays["row"])
    vocabulary = _renumber(arrays, ("tokens", "promoted", "suppressed"))
    histogram = _trimmed(arrays)
    score_steps = _to_steps(arrays, ("promoted_score", "suppressed_score"))
    words = token_strings(model.tokenizer, vocabulary)
    top = store.manifest["config"]["top"]
    return {
        "schema": SCHEMA,
        "model": model.cfg.model_name,
        "tokens_seen": store.blocks.numel(),
        "dictionaries": [
            _about(spec, size, first, quality.get(spec.name, {}))
            for spec, size, first in zip(specs, sizes, firsts, strict=True)
        ],
        "vocabulary": words,
        "labels": list(_labels(arrays, words, top)),
        "top": top,
        "around": WINDOW,
        "score_steps": score_steps,
        "cosine_steps": COSINE_STEPS,
        "histogram": histogram,
        "arrays": {key: value.numpy().astype(TYPES[key]) for key, value in arrays.items()},
    }


TYPES = {
    "density": "<f4",
    "largest": "<f4",
    "row": "<u4",
    "position": "<u2",
    "activation": "<u2",
    "window": "<u1",
    "promoted": "<u4",
    "promoted_score": "<i2",
    "suppressed": "<u4",
    "suppressed_score": "<i2",
    "decoder": "<u2",
    "decoder_cosine": "<i2",
    "encoder": "<u2",
    "encoder_cosine": "<i2",
    "layers": "<u2",
    "layers_cosine": "<i2",
    "histogram": "<u4",
    "tokens": "<u4",
}


def _about(
    spec: DictionarySpec, features: int, first: int, quality: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": spec.name,
        "source": str(spec.source),
        "target": str(spec.target),
        "architecture": spec.architecture,
        "features": features,
        "first": first,
        "quality": dict(quality),
    }


def _own_arrays(
    model: TransformerBridge, dictionary: SparseDictionary, first: int, total: int, store: Store
) -> dict[str, Tensor]:
    """The arrays of one dictionary's features, tokens and rows still numbered as in the store."""
    every = range(dictionary.n_features)
    arrays = _example_arrays(store.examples(dictionary))
    arrays |= _token_arrays(logit_tokens(model, dictionary, every))
    for kind, nearest in (("decoder", by_decoder), ("encoder", by_encoder)):
        found = [(nearest(dictionary, every), first)]
        arrays |= _neighbour_arrays(kind, found, dictionary.n_features, NEAREST, total)
    return arrays


def _layer_arrays(
    dictionaries: InTurn,
    place: int,
    specs: Sequence[DictionarySpec],
    firsts: Sequence[int],
    total: int,
) -> dict[str, Tensor]:
    """The nearest features in other layers; two dictionaries are in memory for it."""
    written, others = dictionaries[place].W_dec, siblings(place, specs)
    found = [(across(written, dictionaries[i]), firsts[i]) for i in others]
    width = max(len(siblings(i, specs)) for i in range(len(specs)))
    return _neighbour_arrays("layers", found, len(written), width, total)


def _token_arrays(tokens: LogitTokens) -> dict[str, Tensor]:
    return {
        "promoted": tokens.promoted,
        "promoted_score": tokens.promoted_scores,
        "suppressed": tokens.suppressed,
        "suppressed_score": tokens.suppressed_scores,
    }


def _example_arrays(examples: Examples) -> dict[str, Tensor]:
    both = (examples.top, examples.sampled)
    row, position, activation, scale, window = (
        torch.cat([getattr(passages, key) for passages in both], 1)
        for key in ("row", "position", "activation", "scale", "window")
    )
    largest = examples.top.activation[:, :1]
    by = largest.clamp_min(torch.finfo(torch.float32).tiny)
    share = window * (scale / by / STEPS).unsqueeze(-1)
    return {
        "density": examples.fired / max(1, examples.tokens),
        "largest": largest[:, 0],
        "row": row.long(),
        "position": position.int(),
        "activation": (activation / by * 65_535).round().int(),
        "window": (share.clamp(0, 1) * 255).round().to(torch.uint8),
        **({} if examples.counts is None else {"histogram": examples.counts}),
    }


def _trimmed(arrays: dict[str, Tensor]) -> dict[str, int] | None:
    """Leave out the steps at either end that no feature has; the first one kept."""
    if "histogram" not in arrays:
        return None
    counts = arrays["histogram"]
    seen = counts.any(0).nonzero()[:, 0].tolist() or [0]
    arrays["histogram"] = counts[:, seen[0] : seen[-1] + 1]
    return {"first": seen[0] + LOWEST * PER_DOUBLING, "per_doubling": PER_DOUBLING}


def _neighbour_arrays(
    kind: str, found: Sequence[tuple[Nearest, int]], features: int, width: int, nothing: int
) -> dict[str, Tensor]:
    """Neighbours side by side, each numbered from its dictionary's first feature."""
    index = torch.full((features, width), nothing)
    cosine = torch.zeros(features, width)
    filled = 0
    for nearest, first in found:
        span = slice(filled, filled + nearest.index.shape[1])
        index[:, span] = nearest.index + first
        cosine[:, span] = nearest.cosine
        filled = span.stop
    return {kind: index, f"{kind}_cosine": (cosine * COSINE_STEPS).round().int()}


def _rows_used(blocks: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of text that examples point into, and `rows` as numbers of those."""
    used = rows[rows != EMPTY].unique()
    place = torch.full((len(blocks) + 1,), len(used))
    place[used] = torch.arange(len(used))
    return blocks[used], place[rows]


def _renumber(arrays: dict[str, Tensor], keys: Sequence[str]) -> list[int]:
    """Replace token ids by their places among all that occur; those ids."""
    ids = torch.cat([arrays[key].flatten() for key in keys]).unique()
    for key in keys:
        arrays[key] = torch.searchsorted(ids, arrays[key].contiguous())
    return ids.tolist()


def _to_steps(arrays: dict[str, Tensor], keys: Sequence[str]) -> float:
    """Replace scores by whole numbers; how many of them make one."""
    largest = max(float(arrays[key].abs().max()) for key in keys)
    steps = SCORE_RANGE / largest if largest else 1.0
    for key in keys:
        arrays[key] = (arrays[key] * steps).round().int()
    return steps


def _labels(arrays: Mapping[str, Tensor], words: Sequence[str], top: int) -> Iterator[str]:
    tokens = arrays["tokens"]
    row, position = arrays["row"][:, :top], arrays["position"][:, :top].long()
    found = row < len(tokens)
    peaks = tokens[row.clamp(max=len(tokens) - 1), position] if len(tokens) else row
    for i in range(len(row)):
        at = [words[int(p)] for p in peaks[i][found[i]].tolist()]
        yield short_name(at, [words[int(arrays["promoted"][i, 0])]])
