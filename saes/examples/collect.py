"""Where features fire: the strongest passages of every feature of a dictionary, and a sample.

One pass over the text serves all features of all dictionaries. Each row of text offers a feature
at most one passage to each list, and passages that read the same up to their strongest token
count once: a causal model has seen nothing further.

    top        the largest activations
    sampled    positions where the feature is active, drawn with equal chances

A passage is a row of text, a position in it, and the activations `WINDOW` tokens either way,
kept as whole 127ths of the largest of them. That is 33 bytes where exact values take 132, off by
less than one shade of any picture, and a card needs no model. The value at the position is exact.
A feature is active where it is positive.

Axes: `examples` best first, `shown` the 2 WINDOW + 1 places of a passage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary
from saes.examples.histogram import Histogram, count, histogram, no_counts
from saes.features import Features
from saes.on_demand import InTurn, fitting

WINDOW = 16
"Tokens kept on either side of a passage's own."
SHOWN = 2 * WINDOW + 1
STEPS = 127
EMPTY = -1
"Rank and row of a place in a list that no passage has taken."
TOTALS = ("tokens", "fired", "counts")
MULTIPLIER = 6364136223846793005

TokenTensors = Sequence[Int[Tensor, " _"]] | Int[Tensor, "rows pos"]
Slots = dict[str, Tensor]
"""Passages in the making, each tensor `[features, examples, ...]`, best first.

`rank` orders them, `context` is equal where they read the same; the rest is in `Passages`.
"""


@dataclass(frozen=True)
class Passages:
    """Passages of every feature of a dictionary; `row` is -1 where there is none."""

    row: Int[Tensor, "features examples"]
    position: Int[Tensor, "features examples"]
    activation: Float[Tensor, "features examples"]
    scale: Float[Tensor, "features examples"]
    "the largest size of an activation in the passage"
    window: Int[Tensor, "features examples shown"]
    "activations in units of scale / 127, zero past either end of the row"


@dataclass(frozen=True)
class Example:
    """One passage: token ids, an activation for each, and which of them it is about."""

    tokens: list[int]
    values: list[float]
    peak: int


@dataclass(frozen=True)
class Examples:
    """What a text says about the features of one dictionary."""

    tokens: int
    "tokens looked at"
    fired: Int[Tensor, " features"]
    "tokens on which each feature is active"
    top: Passages
    sampled: Passages
    rows: TokenTensors
    "the text that passages point into"
    counts: Int[Tensor, "features steps"] | None = None
    "tokens by activation, as in `histogram`; None where nobody counted"

    def density(self, feature: int) -> float:
        """Share of tokens on which the feature is active."""
        return float(self.fired[feature]) / max(1, self.tokens)

    def largest(self, feature: int) -> float | None:
        """The feature's largest activation, None where it is never active."""
        active = self.top.row.shape[1] > 0 and int(self.fired[feature]) > 0
        return float(self.top.activation[feature, 0]) if active else None

    def histogram(self, feature: int) -> Histogram | None:
        """How often each activation comes; None where it never does, or nobody counted."""
        return None if self.counts is None else histogram(self.counts[feature])

    def of(self, feature: int, passages: Passages) -> list[Example]:
        """The feature's passages among `passages` (`top` or `sampled`), best first."""
        count = int((passages.row[feature] != EMPTY).sum())
        return [self._example(feature, i, passages) for i in range(count)]

    def _example(self, feature: int, i: int, passages: Passages) -> Example:
        row = self.rows[int(passages.row[feature, i])]
        at = int(passages.position[feature, i])
        first, last = max(0, at - WINDOW), min(len(row), at + WINDOW + 1)
        steps = passages.window[feature, i, first - at + WINDOW : last - at + WINDOW]
        values = (steps.double() * float(passages.scale[feature, i]) / STEPS).tolist()
        values[at - first] = float(passages.activation[feature, i])
        return Example(row[first:last].tolist(), values, at - first)


def find_examples(
    model: TransformerBridge,
    dictionaries: InTurn,
    wanted: Sequence[Sequence[int]],
    texts: Iterable[Batch],
    *,
    top: int,
) -> list[Examples]:
    """The strongest passages in `texts` of the features wanted of each dictionary, in their order.

    Positions count from a text's first real token, whatever its padding.
    """
    device, dictionaries = device_of(model), fitting(dictionaries, model)
    tallies = [
        Tally(
            partial(dictionaries.__getitem__, i),
            features=torch.tensor(list(features), device=device),
            top=top,
            sampled=0,
        )
        for i, features in enumerate(wanted)
    ]
    rows: list[Tensor] = []
    for batch in texts:
        if tallies:
            collect_examples(
                model, tallies, batch, torch.zeros(batch.tokens.shape), first=len(rows)
            )
        rows += [tokens[mask] for tokens, mask in zip(batch.tokens, batch.mask, strict=True)]
    return [tally.examples(rows) for tally in tallies]


class Tally:
    """What is known so far of the features of one dictionary, which is read when it is needed."""

    def __init__(
        self,
        read: Callable[[], SparseDictionary],
        *,
        top: int,
        sampled: int,
        features: Int[Tensor, " features"] | None = None,
    ) -> None:
        """`features` picks some of the dictionary's features; None is all of them."""
        self.read, self.features = read, features
        dictionary = read()
        n = dictionary.n_features if features is None else len(features)
        self.source, self.device = dictionary.source, dictionary.W_enc.device
        self.tokens = torch.zeros((), dtype=torch.int64, device=self.device)
        self.fired = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.counts = no_counts(n, self.device)
        self.top = _empty((n, top), self.device)
        self.sampled = _empty((n, sampled), self.device)

    def encoded(self, seen: Mapping[Site, Tensor]) -> Features:
        """The features that are asked for, of what the model has at their source."""
        dictionary = self.read()
        f = dictionary.encode(seen[self.source].to(dictionary.W_enc))
        return f if self.features is None else Features.of_coordinates(f.of(self.features))

    def add(
        self,
        features: Features,
        batch: Batch,
        sampling_keys: Float[Tensor, "batch pos"],
        first: int,
    ) -> None:
        """Take in the features of one pass; its rows are number `first` and on.

        `sampling_keys` are random numbers from 0 to 1: the active positions with the largest are
        sampled. What is gathered stays on the device.
        """
        self.tokens += batch.mask.sum()
        count(self.counts, features, batch.mask)
        for part, f in features.dense_parts():
            self._add(part, f * batch.mask.unsqueeze(-1), batch, sampling_keys, first)

    def _add(
        self,
        part: slice,
        f: Float[Tensor, "batch pos part"],
        batch: Batch,
        sampling_keys: Float[Tensor, "batch pos"],
        first: int,
    ) -> None:
        """Take in the features of a `part` of the dictionary."""
        active = f > 0
        self.fired[part] += active.sum((0, 1))
        peak, at = f.max(1)
        rank = torch.where(peak > 0, peak.double(), EMPTY)
        _keep_best(self.top, part, _passages(f, at, rank, batch, first))
        if self.sampled["rank"].shape[1]:
            key, at = torch.where(active, sampling_keys.unsqueeze(-1), EMPTY).max(1)
            _keep_best(self.sampled, part, _passages(f, at, key.double(), batch, first))

    def examples(self, rows: TokenTensors) -> Examples:
        """The result, its passages pointing into `rows`."""
        state, parts = self.state(), [field.name for field in fields(Passages)]
        top, sampled = (
            Passages(**{part: state[f"{kind}.{part}"] for part in parts})
            for kind in ("top", "sampled")
        )
        return Examples(
            int(state["tokens"]), state["fired"], top, sampled, rows, counts=state["counts"]
        )

    def state(self) -> dict[str, Tensor]:
        """All that `add` has gathered, as tensors on the host by name."""
        lists = {"top": self.top, "sampled": self.sampled}
        gathered = {f"{name}.{k}": v for name, slots in lists.items() for k, v in slots.items()}
        gathered |= {name: getattr(self, name) for name in TOTALS}
        return dict(zip(gathered, to_host(list(gathered.values())), strict=True))

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.tokens, self.fired, self.counts = (state[k].to(self.device) for k in TOTALS)
        self.top = {k: state[f"top.{k}"].to(self.device) for k in self.top}
        self.sampled = {k: state[f"sampled.{k}"].to(self.device) for k in self.sampled}


@torch.no_grad()
def collect_examples(
    model: TransformerBridge,
    tallies: Sequence[Tally],
    batch: Batch,
    sampling_keys: Float[Tensor, "batch pos"],
    *,
    first: int,
) -> None:
    """One forward pass; its activations go to every tally, one dictionary at a time."""
    sources = {tally.source for tally in tallies}
    with capture(model, sources) as seen:
        run_through(model, batch, max(site.layer for site in sources))
    device = device_of(model)
    batch, sampling_keys = batch.to(device), sampling_keys.to(device)
    for tally in tallies:
        tally.add(tally.encoded(seen), batch, sampling_keys, first)


def _empty(shape: tuple[int, ...], device: torch.device) -> Slots:
    with device:
        return {
            "rank": torch.full(shape, EMPTY, dtype=torch.float64),
            "context": torch.zeros(shape, dtype=torch.int64),
            "row": torch.full(shape, EMPTY, dtype=torch.int32),
            "position": torch.zeros(shape, dtype=torch.int16),
            "activation": torch.zeros(shape),
            "scale": torch.zeros(shape),
            "window": torch.zeros(*shape, SHOWN, dtype=torch.int8),
        }


def _passages(
    f: Float[Tensor, "batch pos features"],
    at: Int[Tensor, "batch features"],
    rank: Float[Tensor, "batch features"],
    batch: Batch,
    first: int,
) -> Slots:
    """The passage of each row and feature around position `at`."""
    around = torch.arange(-WINDOW, WINDOW + 1, device=f.device)
    index = at.unsqueeze(1) + around[:, None]
    inside = (index >= 0) & (index < f.shape[1])
    values = f.gather(1, index.clamp(0, f.shape[1] - 1)) * inside
    scale = values.abs().amax(1)
    steps = values / scale.clamp_min(torch.finfo(f.dtype).tiny).unsqueeze(1) * STEPS
    rows = torch.arange(first, first + len(f), device=f.device)
    padding = (~batch.mask).sum(1, keepdim=True)
    by_feature = {
        "rank": rank,
        "context": _contexts(batch).gather(1, at),
        "row": rows[:, None].expand_as(at).int(),
        "position": (at - padding).short(),
        "activation": f.gather(1, at.unsqueeze(1)).squeeze(1).float(),
        "scale": scale.float(),
    }
    slots = {k: rearrange(v, "batch features -> features batch") for k, v in by_feature.items()}
    slots["window"] = rearrange(
        steps.round().to(torch.int8), "batch shown features -> features batch shown"
    )
    return slots


def _contexts(batch: Batch) -> Int[Tensor, "batch pos"]:
    """A number for each position, equal where the WINDOW + 1 tokens up to it are.

    Differs from plain equality by hash collisions, once in 10^19 pairs of passages.
    """
    ids = F.pad((batch.tokens + 1) * batch.mask, (WINDOW, 0)).unfold(1, WINDOW + 1, 1)
    powers = torch.full((WINDOW + 1,), MULTIPLIER, device=ids.device).cumprod(0)
    return (ids * powers).sum(-1)


def _keep_best(kept: Slots, part: slice, new: Slots) -> None:
    """The best of what is kept of a part of the features and of what is new, in place."""
    for name, value in _best({name: value[part] for name, value in kept.items()}, new).items():
        kept[name][part] = value


def _best(kept: Slots, new: Slots) -> Slots:
    """The best of both, as many as there are places; of equal ranks the earlier one goes first."""
    both = {name: torch.cat([kept[name], new[name]], 1) for name in kept}
    both = _take(both, both["rank"].argsort(dim=1, descending=True, stable=True))
    same = both["context"].unsqueeze(2) == both["context"].unsqueeze(1)
    both["rank"] = both["rank"].masked_fill(same.tril(-1).any(2), EMPTY)
    order = both["rank"].argsort(dim=1, descending=True, stable=True)
    best = _take(both, order[:, : kept["rank"].shape[1]])
    free = best["rank"] == EMPTY
    nothing = _empty(tuple(free.shape), free.device)
    spread = free.unsqueeze(-1)
    return {k: torch.where(spread if v.dim() > 2 else free, nothing[k], v) for k, v in best.items()}


def _take(slots: Slots, order: Int[Tensor, "features examples"]) -> Slots:
    def along(value: Tensor) -> Tensor:
        index = order if value.dim() == 2 else order.unsqueeze(-1).expand(-1, -1, SHOWN)
        return value.gather(1, index)

    return {name: along(value) for name, value in slots.items()}
