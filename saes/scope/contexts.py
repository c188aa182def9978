"""Short contexts of running text, and where the features of a dictionary are on in them.

The model reads rows of `ContextConfig.block_length` tokens, and contexts are cut from these, so
that a context has a past that is not shown. Norm outliers (mostly the first token of a row) do not
count. What is held grows with tokens times the features that are on at each, not with the width.

Axes: `contexts` as cut; `pos` their tokens; `entries` a feature at a token at which it is on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import token_blocks
from hooked_qwen.transfer import to_host
from saes.evaluation.splice import unpadded
from saes.suite import Suite

ROWS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """How much text is read, and how it is cut."""

    tokens: int = 131_072
    "of running text"
    block_length: int = 256
    "tokens that the model reads at once"
    length: int = 32
    "tokens of a context"

    def __post_init__(self) -> None:
        if self.length < 2 or self.block_length % self.length:
            raise ValueError(
                f"contexts of {self.length} tokens are not cut from rows of {self.block_length}: "
                "expected 2 or more that divide it"
            )
        if self.tokens < self.block_length:
            raise ValueError(
                f"tokens is {self.tokens}: expected at least one row of {self.block_length}"
            )


@dataclass(frozen=True)
class Contexts:
    """What of one dictionary is on in contexts of text; entries by feature, then as they stand."""

    tokens: Int[Tensor, "contexts pos"]
    n_features: int
    feature: Int[Tensor, " entries"]
    context: Int[Tensor, " entries"]
    position: Int[Tensor, " entries"]
    value: Float[Tensor, " entries"]

    def __len__(self) -> int:
        return len(self.tokens)

    def counts(self) -> Int[Tensor, " features"]:
        """In how many contexts each feature is on."""
        pairs = (self.feature * len(self) + self.context).unique()
        return (pairs // max(1, len(self))).bincount(minlength=self.n_features)

    def firing_counts(self) -> Int[Tensor, " features"]:
        """At how many tokens each feature is on."""
        return self.feature.bincount(minlength=self.n_features)

    def of(self, feature: int) -> tuple[Int[Tensor, " on"], Float[Tensor, "on pos"]]:
        """The contexts that a feature is on in, and its activation at each of their tokens."""
        bounds = torch.searchsorted(self.feature, torch.tensor([feature, feature + 1]))
        own = slice(*bounds.tolist())
        on, row = self.context[own].unique(return_inverse=True)
        values = self.value.new_zeros(len(on), self.tokens.shape[1])
        values[row, self.position[own]] = self.value[own]
        return on, values


@torch.no_grad()
def read_contexts(
    model: TransformerBridge,
    suite: Suite,
    names: Sequence[str],
    texts: Iterable[str],
    *,
    config: ContextConfig,
    source: str = "the text",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Contexts]:
    """Contexts of `texts` and what is on in them, of each of the dictionaries in `names`.

    Only what is on with a positive value counts: a description is of what a feature fires on.

    Raises `ValueError` for text that is shorter than one row, which calls it `source`.
    """
    length = config.block_length
    rows = list(
        islice(token_blocks(texts, model.tokenizer, length=length), config.tokens // length)
    )
    if not rows:
        raise ValueError(f"{source} is shorter than one row of {length} tokens: give more text")
    blocks = torch.stack(rows)
    suite = suite.fitting(model)
    read = {site for name in names for site in suite.reads_of(name)}
    found: dict[str, list[list[Tensor]]] = {name: [] for name in names}
    for part in torch.arange(len(blocks)).split(ROWS_AT_ONCE):
        with capture(model, read) as seen:
            run_through(model, unpadded(blocks[part]), max(0, *(s.layer for s in read)))
        for name in names:
            entries = _entries(suite, name, suite.read(name, seen))
            entries[0] += part[0]
            found[name].append(entries)
        report(int(part[-1]) + 1, len(blocks))
    return {name: _cut(blocks, suite[name].n_features, found[name], config) for name in names}


def _entries(suite: Suite, name: str, x: Float[Tensor, "rows pos d"]) -> list[Tensor]:
    """Row, position, feature and value of all that is on."""
    f = suite[name].encode(x).coalesced()
    counted: Bool[Tensor, "rows pos"] = mean_weights(x, torch.ones_like(x[..., 0]).bool()) > 0
    on = (f.value > 0) & counted.unsqueeze(-1)
    row, position, slot = on.nonzero(as_tuple=True)
    entry = row, position, slot
    return to_host([row, position, f.index[entry], f.value[entry].float()])


def _cut(
    blocks: Int[Tensor, "rows pos"],
    n_features: int,
    entries: Sequence[Sequence[Tensor]],
    config: ContextConfig,
) -> Contexts:
    row, position, feature, value = (torch.cat(column) for column in zip(*entries, strict=True))
    a_row = config.block_length // config.length
    context = row * a_row + position // config.length
    order = feature.argsort(stable=True)
    return Contexts(
        tokens=blocks.reshape(-1, config.length),
        n_features=n_features,
        feature=feature[order],
        context=context[order],
        position=(position % config.length)[order],
        value=value[order],
    )
