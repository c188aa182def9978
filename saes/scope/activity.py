"""Which features are on in each of some texts, and how strongly.

Norm outliers (mostly the first token) are left out, as everywhere texts are summed up: features
that respond to the norm alone would be on in all of them.

Axes: `texts`; `entries` pairs of a text and a feature that is on in it; features count through
all dictionaries, one after another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import by_length, encode_prompt
from hooked_qwen.transfer import to_host
from saes.evaluation.splice import unpadded
from saes.features import Features
from saes.suite import Suite

LONGEST = 256
"Tokens of a text that are read; the rest is cut."
TOKENS_PER_PASS = 4096


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The features that are on in some texts; entries by text, then by feature."""

    names: tuple[str, ...]
    "of the dictionaries"
    widths: tuple[int, ...]
    "how many features each of them has"
    was_cut: Bool[Tensor, " texts"]
    "texts that were longer than what was read of them"
    text: Int[Tensor, " entries"]
    feature: Int[Tensor, " entries"]
    mean: Float[Tensor, " entries"]
    "activation, over all tokens of the text that count"
    largest: Float[Tensor, " entries"]
    "by size"

    def __len__(self) -> int:
        return len(self.was_cut)

    @property
    def n_features(self) -> int:
        """Of all dictionaries together."""
        return sum(self.widths)

    @property
    def starts(self) -> dict[str, int]:
        """The number of each dictionary's first feature."""
        return dict(zip(self.names, accumulate((0, *self.widths[:-1])), strict=True))

    def number(self, node: Node) -> int:
        """A feature's number."""
        return self.starts[node.site] + int(node.feature)

    def node(self, feature: int) -> Node:
        """A feature by its number."""
        for name, width, end in zip(self.names, self.widths, accumulate(self.widths), strict=True):
            if feature < end:
                return Node(name, feature - end + width)
        raise IndexError(f"there are {self.n_features} features, not {feature + 1}")

    def of_texts(self, chosen: Int[Tensor, " some"]) -> "Activity":
        """Some of the texts, each once, in their order."""
        place = torch.full((len(self),), -1).scatter_(0, chosen, torch.arange(len(chosen)))
        number = place[self.text]
        keep = (number >= 0).nonzero().squeeze(-1)
        order = keep[number[keep].sort(stable=True).indices]
        return Activity(
            names=self.names,
            widths=self.widths,
            was_cut=self.was_cut[chosen],
            text=number[order],
            feature=self.feature[order],
            mean=self.mean[order],
            largest=self.largest[order],
        )


def difference_weights(positive: Bool[Tensor, " texts"]) -> Float[Tensor, " texts"]:
    """Weights with which a sum over texts is the mean of the positive ones less that of the rest.

    In float64.
    """
    return positive.double() / positive.sum() - (~positive).double() / (~positive).sum()


@dataclass(frozen=True)
class Reading:
    """What one pass over some texts found."""

    activity: Activity
    means: dict[Site, Float[Tensor, "texts d_site"]]
    "the mean tensor at each site that was asked for, over the tokens that count"
    beside: tuple[Activity, ...] = ()
    "of other suites, read in the same pass"


def activity_of(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    *,
    longest: int = LONGEST,
    report: Report = silent,
) -> Activity:
    """Which features of a suite are on in each of `texts`, as `read_through` finds them."""
    return read_through(model, suite, texts, longest=longest, report=report).activity


@torch.no_grad()
def read_through(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    *,
    sites: Sequence[Site] = (),
    beside: Sequence[Suite] = (),
    longest: int = LONGEST,
    report: Report = silent,
) -> Reading:
    """Which features are on in each of `texts`, whose first tokens are read, and means at `sites`.

    Suites `beside` are read in the same pass, such as controls.

    Raises `ValueError` without texts, and for one without tokens.
    """
    if not texts:
        raise ValueError("there is no text to read")
    rows = [encode_prompt(model.tokenizer, text) for text in texts]
    if not all(rows):
        raise ValueError(f"text {[bool(row) for row in rows].index(False) + 1} has no tokens")
    suites = [one.fitting(model) for one in (suite, *beside)]
    read = {site for one in suites for name in one for site in one.reads_of(name)} | set(sites)
    deepest = max(0, *(site.layer for site in read))
    parts: list[list[_ActiveInTexts]] = [[] for _ in suites]
    order: list[int] = []
    means: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for index, tokens in by_length([row[:longest] for row in rows], TOKENS_PER_PASS // longest):
        with capture(model, read) as seen:
            run_through(model, unpadded(tokens), deepest)
        for one, some in zip(suites, parts, strict=True):
            some += _parts(one, seen, torch.tensor(index))
        for site in sites:
            shares = _shares(seen[site])
            means[site].append(einsum(shares, seen[site], "text pos, text pos d -> text d").cpu())
        order += index
        report("texts", len(order), len(texts))
    was_cut = torch.tensor([len(row) > longest for row in rows])
    found = [_joined(one, some, was_cut) for one, some in zip(suites, parts, strict=True)]
    back = torch.tensor(order).argsort()
    in_order = {site: torch.cat(some)[back] for site, some in means.items()}
    return Reading(found[0], in_order, tuple(found[1:]))


_ActiveInTexts = tuple[Tensor, Tensor, Tensor, Tensor]
"""Text, feature, mean and largest activation of what is on."""


def _parts(
    suite: Suite, seen: Mapping[Site, Tensor], index: Int[Tensor, " batch"]
) -> list[_ActiveInTexts]:
    """What each dictionary has on in the texts of a batch, whose numbers are `index`."""
    parts, start = [], 0
    for name in suite:
        x, dictionary = suite.read(name, seen), suite[name]
        row, feature, mean, largest = _pooled(dictionary.encode(x), _shares(x))
        parts.append((index[row], feature + start, mean, largest))
        start += dictionary.n_features
    return parts


def _joined(
    suite: Suite, parts: Sequence[_ActiveInTexts], was_cut: Bool[Tensor, " texts"]
) -> Activity:
    text, feature, mean, largest = (torch.cat(column) for column in zip(*parts, strict=True))
    widths = tuple(suite[name].n_features for name in suite)
    by_text = (text * sum(widths) + feature).argsort()
    return Activity(
        names=tuple(suite),
        widths=widths,
        was_cut=was_cut,
        text=text[by_text],
        feature=feature[by_text],
        mean=mean[by_text],
        largest=largest[by_text],
    )


def _shares(x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos"]:
    """What each token counts for in a mean over its text, where none is padding."""
    return mean_weights(x, torch.ones_like(x[..., 0], dtype=torch.bool)).to(x)


def _pooled(
    f: Features, shares: Float[Tensor, "batch pos"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, feature, mean and largest activation of what is on in each row of a batch."""
    counted = f.coalesced().times((shares > 0).unsqueeze(-1))
    row, position, slot = (counted.value != 0).nonzero(as_tuple=True)
    value = counted.value[row, position, slot]
    key, place = (row * f.width + counted.index[row, position, slot]).unique(return_inverse=True)
    mean = value.new_zeros(len(key)).index_add_(0, place, value * shares[row, position])
    # The largest by size, with its sign: features of some dictionaries may be negative.
    high, low = (
        value.new_zeros(len(key)).scatter_reduce_(0, place, value, how) for how in ("amax", "amin")
    )
    largest = torch.where(high >= -low, high, low)
    rows, features, mean, largest = to_host([key // f.width, key % f.width, mean, largest])
    return rows, features, mean, largest
