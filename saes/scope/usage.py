"""How often and how strongly features are on in texts, and at which tokens they are strongest.

Norm outliers (mostly the first token) are left out, as everywhere texts are summed up.

Axes: `texts`; `features` of one dictionary; `followed` those whose strongest tokens are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import by_length, encode_prompt
from hooked_qwen.transfer import to_host
from saes.evaluation.splice import unpadded
from saes.examples.store import Store
from saes.features import Features
from saes.scope.activity import LONGEST, TOKENS_PER_PASS
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The token of a text, or of a passage, at which a feature is strongest."""

    token: int
    activation: float


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How features of some dictionaries are used in texts; on the CPU."""

    density: Mapping[str, Float[Tensor, " features"]]
    "share of the tokens at which each feature is on, by dictionary"
    largest: Mapping[str, Float[Tensor, " features"]]
    "largest activation by size, with its sign; 0 of a feature that is never on"
    peaks: Mapping[Node, Sequence[Peak]] = field(default_factory=dict)
    "of each feature that was followed, one for each text in which it is on, strongest first"

    def largest_of(self, node: Node) -> float:
        """The largest activation of one feature."""
        return float(self.largest[node.site][int(node.feature)])

    def density_of(self, node: Node) -> float:
        """The share of tokens at which one feature is on."""
        return float(self.density[node.site][int(node.feature)])


@torch.no_grad()
def usage_in(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    *,
    names: Sequence[str],
    follow: Sequence[Node] = (),
    longest: int = LONGEST,
    report: Report = silent,
) -> Usage:
    """How the features of the dictionaries `names` are used in texts, whose first tokens are read.

    Raises `ValueError` without texts.
    """
    rows = [row[:longest] for text in texts if (row := encode_prompt(model.tokenizer, text))]
    if not rows:
        raise ValueError("there is no text to read: features' activations are measured on it")
    suite = suite.fitting(model)
    read = {site for name in names for site in suite.reads_of(name)}
    tallies = {name: _Tally(suite[name].n_features, name, follow) for name in names}
    done = 0
    for index, tokens in by_length(rows, max(1, TOKENS_PER_PASS // longest)):
        with capture(model, read) as seen:
            run_through(model, unpadded(tokens), max(0, *(site.layer for site in read)))
        for name in names:
            x = suite.read(name, seen)
            counted = ~is_outlier_in_prompt(x, torch.ones_like(x[..., 0], dtype=torch.bool))
            f = suite[name].encode(x).coalesced().times(counted.unsqueeze(-1))
            tallies[name].add(f, int(counted.sum()), tokens)
        done += len(index)
        report("texts", done, len(rows))
    return Usage(
        density={name: tally.density() for name, tally in tallies.items()},
        largest={name: tally.largest() for name, tally in tallies.items()},
        peaks={node: peaks for tally in tallies.values() for node, peaks in tally.peaks().items()},
    )


class _Tally:
    """What is known of one dictionary after some of the texts."""

    def __init__(self, width: int, name: str, follow: Sequence[Node]) -> None:
        self.count, self.high, self.low = (torch.zeros(width) for _ in range(3))
        self.tokens = 0
        self.followed = [node for node in follow if node.site == name]
        self._peaks: list[tuple[Tensor, Tensor]] = []

    def add(self, f: Features, tokens: int, ids: Int[Tensor, "batch pos"]) -> None:
        index, value = to_host([f.index.flatten(), f.value.flatten().float()])
        self.count.index_add_(0, index, (value != 0).float())
        self.high.scatter_reduce_(0, index, value, "amax")
        self.low.scatter_reduce_(0, index, value, "amin")
        self.tokens += tokens
        if self.followed:
            chosen = torch.tensor([int(n.feature) for n in self.followed], device=f.index.device)
            size = f.of(chosen).abs().max(1)
            peak, at = to_host([size.values.float(), size.indices])
            self._peaks.append((peak, ids.cpu().gather(1, at)))

    def density(self) -> Tensor:
        return self.count / max(1, self.tokens)

    def largest(self) -> Tensor:
        return torch.where(self.high >= -self.low, self.high, self.low)

    def peaks(self) -> dict[Node, list[Peak]]:
        if not self._peaks:
            return {}
        size, token = (torch.cat(column) for column in zip(*self._peaks, strict=True))
        found = {}
        for column, node in enumerate(self.followed):
            order = size[:, column].argsort(descending=True, stable=True)
            pairs = zip(size[order, column].tolist(), token[order, column].tolist(), strict=True)
            found[node] = [Peak(token=t, activation=a) for a, t in pairs if a > 0]
        return found


def usage_of_store(
    store: Store, suite: Suite, *, names: Sequence[str], follow: Sequence[Node] = ()
) -> Usage:
    """The same from examples that were collected before, their strongest passages as peaks.

    Raises `ValueError` for a store of other dictionaries.
    """
    density, largest, peaks = {}, {}, {}
    for name in names:
        examples = store.examples(suite[name])
        density[name] = examples.fired / max(1, examples.tokens)
        top = examples.top.activation
        first = top[:, 0].float() if top.shape[1] else torch.zeros(len(top))
        largest[name] = torch.where(examples.fired > 0, first, 0.0)
        for node in (node for node in follow if node.site == name):
            passages = examples.of(int(node.feature), examples.top)
            peaks[node] = [
                Peak(token=one.tokens[one.peak], activation=one.values[one.peak])
                for one in passages
            ]
    return Usage(density=density, largest=largest, peaks=peaks)
