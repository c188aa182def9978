"""Circuits from weights alone: how much a feature reads of what another writes, without a prompt.

With norms and attention patterns frozen, what source feature s adds to the pre-activation of target
feature t is a sum over paths of a number of the prompt times a number of the weights:

    path        of the prompt                           of the weights: `virtual weight`
    direct      a_s * r_t                               W_dec_s . R_t
    head h      a_s * pattern_h[t, s] * r_l * r_t       W_dec_s . W_V_h^T W_O_h^T R_t
    token       r_t                                     W_E . R_t          (de-embedding)

with a_s the activation of s, r = 1 / rms where the target or the layer l of the head reads, and
R_t = gain * W_enc_t, the encoder row as it reads the residual stream. Gains are folded into R_t and
W_V. Direct and token paths stay at one token.

`strongest_inputs`, `strongest_outputs` and `strongest_pairs` keep the largest by size, so what
inhibits stays in. Products are taken in parts: memory does not grow with the number of pairs.

A source is any dictionary that writes to the stream, a target any that reads it: `mlp_in.L` or
`resid_*.L`.

Source: Dunefsky et al. 2024, arXiv:2406.11944 (input-invariant connections, de-embedding, heads'
pullbacks). Differs: gains are folded into the reader, where the paper leaves them out.

Axes: `targets`, `sources` features; `rows` of either; `k` kept of each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.suite import Suite
from transcoders.frozen.attention import GATED
from transcoders.frozen.norm import gain_of

AT_ONCE = 2**24
"Virtual weights that are in memory together: 64 MB in float32."
READERS = ("mlp_in", "resid_pre", "resid_mid", "resid_post")
WRITERS = ("attn_out", "mlp_out", "resid_pre", "resid_post")


@dataclass(frozen=True)
class Head:
    """An attention head that a path goes through."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"head {self.layer}.{self.head}"


@dataclass(frozen=True)
class Connection:
    """A source and a target, and the virtual weight of one path between them."""

    source: Node
    "without a position"
    target: Node
    weight: float
    "change of the target's pre-activation per unit of what the prompt multiplies it by"
    through: Head | None = None
    mean: float | None = None
    "what the source adds on average where the target is on, where a text was given"
    together: float | None = None
    "of the tokens where the target is on, the share at which the source is on too"


@runtime_checkable
class ReadTogether(Protocol):
    """How much of each source there is to be read where a target is on."""

    def factor(self, name: str, head: Head | None) -> Float[Tensor, " features"]:
        """What weights from a dictionary's features are multiplied by on average."""
        ...

    def together(self, name: str) -> Float[Tensor, " features"]:
        """The share of the target's tokens at which each is on."""
        ...


@torch.no_grad()
def reading(
    model: TransformerBridge, dictionary: SparseDictionary, features: Int[Tensor, " targets"]
) -> Float[Tensor, "targets d_model"]:
    """R_t: encoder rows as they read the residual stream before the norm.

    Raises `ValueError` where the dictionary reads something else than the stream.
    """
    site = _only(dictionary.reads, READERS, dictionary.name, "reads")
    rows = dictionary.W_enc[features]
    if site.kind != "mlp_in":
        return rows
    block = cast(Any, model.blocks[site.layer])
    return rows * gain_of(block.ln2.original_component).to(rows)


def has_plain_heads(model: TransformerBridge, layer: int) -> bool:
    """Whether a layer has attention heads whose values pass by weights of the model alone."""
    return _why_no_heads(model, layer) is None


def _why_no_heads(model: TransformerBridge, layer: int) -> str | None:
    block = cast(Any, model.blocks[layer])
    if "linear_attn" in block.submodules:
        return f"layer {layer} has no attention heads: it is a gated delta net"
    if type(block.attn.original_component) in GATED:
        return (
            f"the heads of layer {layer} are gated by the prompt, number by number: no weight of "
            "the model alone says what goes through one"
        )
    return None


@torch.no_grad()
def through_heads(
    model: TransformerBridge, layer: int, vectors: Float[Tensor, "targets d_model"]
) -> Float[Tensor, "heads targets d_model"]:
    """Vectors that read the stream, pulled back through each head of a layer to what it reads.

    Raises `ValueError` for a layer without softmax attention, or whose heads are gated.
    """
    if (why := _why_no_heads(model, layer)) is not None:
        raise ValueError(why)
    block = cast(Any, model.blocks[layer])
    attention = block.attn
    values, output = (attention.get_submodule(n).original_component.weight for n in ("v", "o"))
    d_head = attention.original_component.head_dim
    W_V = (values * gain_of(block.ln1.original_component)).to(vectors).unflatten(0, (-1, d_head))
    W_O = output.to(vectors).unflatten(1, (-1, d_head))
    shared = W_O.shape[1] // len(W_V)
    return torch.einsum("td,dhe,hef->htf", vectors, W_O, W_V.repeat_interleave(shared, 0))


@torch.no_grad()
def strongest_inputs(
    model: TransformerBridge,
    suite: Suite,
    target: Node,
    k: int,
    *,
    through: Sequence[Head] | None = None,
    read: ReadTogether | None = None,
    at_once: int = AT_ONCE,
) -> list[Connection]:
    """What a feature reads most of, by the direct path or through one of some heads each.

    The `k` largest weights by size over all sources that write before the target reads, largest
    first; where it is known what is `read` in a text, the largest mean edges: weight times factor.
    """
    fitted = suite.fitting(model)
    dictionary = fitted[target.site]
    R = reading(model, dictionary, torch.tensor([int(target.feature)], device=_device(dictionary)))
    read_at = dictionary.reads[0]
    found = _LargestWeights(k)
    for head in [None] if through is None else through:
        if head is None:
            vector, before = R[0], read_at
        else:
            vector = through_heads(model, head.layer, R)[head.head, 0]
            before = Site("attn_out", head.layer)
            if not before < read_at:
                raise ValueError(f"{head} comes after {target.site} reads, at {read_at}")
        for name in _writing_before(fitted, before):
            source = fitted[name]
            factor = None if read is None else read.factor(name, head)
            for first, rows in _parts(source.W_dec, at_once):
                weight = rows @ vector
                corrected = weight
                if factor is not None:
                    corrected = weight * factor[first : first + len(rows)].to(weight)
                found.add(
                    corrected,
                    lambda i, w=weight, n=name, at=first, h=head: (float(w[i]), n, at + i, h),
                )
    connections = []
    for mean, (weight, name, index, head) in found.largest():
        there = (None, None) if read is None else (mean, float(read.together(name)[index]))
        connections.append(Connection(Node(name, index), target, weight, head, *there))
    return connections


@torch.no_grad()
def strongest_outputs(
    model: TransformerBridge, suite: Suite, source: Node, k: int, *, at_once: int = AT_ONCE
) -> list[Connection]:
    """What reads a feature most, by the direct path: `k` by size, largest first."""
    fitted = suite.fitting(model)
    dictionary = fitted[source.site]
    written = _only(dictionary.writes, WRITERS, dictionary.name, "writes")
    row, found = dictionary.W_dec[int(source.feature)], _LargestWeights(k)
    for name in _reading_after(fitted, written):
        target = fitted[name]
        for first, rows in _read_in_parts(model, target, at_once):
            found.add(rows @ row, lambda i, n=name, at=first: (n, at + i))
    return [
        Connection(source, Node(name, index), weight) for weight, (name, index) in found.largest()
    ]


@torch.no_grad()
def strongest_pairs(
    model: TransformerBridge, suite: Suite, k: int, *, at_once: int = AT_ONCE
) -> list[Connection]:
    """The strongest direct connections of a whole suite: `k` by size, largest first."""
    fitted, found = suite.fitting(model), _LargestWeights(k)
    for target_name in fitted:
        if not _reads_stream(fitted, target_name):
            continue
        before = fitted.reads_of(target_name)[0]
        for source_name in _writing_before(fitted, before):
            W_dec = fitted[source_name].W_dec
            rows_at_once = at_once // len(W_dec)
            for first, rows in _read_in_parts(model, fitted[target_name], rows_at_once):
                weights = rows @ W_dec.T
                width = weights.shape[1]
                found.add(
                    weights.flatten(),
                    lambda i, s=source_name, t=target_name, at=first, w=width: (
                        Node(s, i % w),
                        Node(t, at + i // w),
                    ),
                )
    return [Connection(source, target, weight) for weight, (source, target) in found.largest()]


@torch.no_grad()
def tokens_read(
    model: TransformerBridge,
    vectors: Float[Tensor, "targets d_model"],
    k: int,
    *,
    factor: Float[Tensor, " vocabulary"] | None = None,
    at_once: int = AT_ONCE,
) -> tuple[Float[Tensor, "targets k"], Int[Tensor, "targets k"]]:
    """De-embedding: the tokens whose embeddings each vector reads most by size, and the weights.

    Weights are multiplied by the `factor` of each token, where there is one.
    """
    W_E = cast(Any, model.embed).original_component.weight
    weights = vectors.new_empty(len(vectors), 0)
    ids = torch.empty_like(weights, dtype=torch.long)
    for first, rows in _parts(W_E, at_once // len(vectors)):
        products = vectors @ rows.to(vectors).T
        if factor is not None:
            products = products * factor[first : first + len(rows)].to(products)
        found, at = _largest_by_size(products, k)
        ids = torch.cat([ids, at + first], 1)
        weights, order = _largest_by_size(torch.cat([weights, found], 1), k)
        ids = ids.gather(1, order)
    return weights, ids


class _LargestWeights:
    """The `k` largest weights by size of all that were shown, with what each is called."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._found: list[tuple[float, Any]] = []

    def add(self, weights: Float[Tensor, " some"], called: Callable[[int], Any]) -> None:
        values, index = _largest_by_size(weights[None], self.k)
        shown = zip(values[0].tolist(), index[0].tolist(), strict=True)
        self._found += [(weight, called(i)) for weight, i in shown]
        self._found = self.largest()

    def largest(self) -> list[tuple[float, Any]]:
        return sorted(self._found, key=lambda pair: -abs(pair[0]))[: self.k]


def _largest_by_size(
    weights: Float[Tensor, "rows columns"], k: int
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    index = weights.abs().topk(min(k, weights.shape[1]), dim=-1).indices
    return weights.gather(1, index), index


def _parts(rows: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Rows in parts of `size`, at least one, each with its first row."""
    size = max(1, size)
    for first in range(0, len(rows), size):
        yield first, rows[first : first + size]


def _read_in_parts(
    model: TransformerBridge, dictionary: SparseDictionary, size: int
) -> Iterator[tuple[int, Float[Tensor, "part d_model"]]]:
    every = torch.arange(dictionary.n_features, device=_device(dictionary))
    for first, some in _parts(every, size):
        yield first, reading(model, dictionary, some)


def _writing_before(suite: Suite, site: Site) -> Iterable[str]:
    for name in suite:
        writes = suite.writes_of(name)
        if len(writes) == 1 and writes[0].kind in WRITERS and writes[0] < site:
            yield name


def _reading_after(suite: Suite, site: Site) -> Iterable[str]:
    return [n for n in suite if _reads_stream(suite, n) and site < suite.reads_of(n)[0]]


def _reads_stream(suite: Suite, name: str) -> bool:
    reads = suite.reads_of(name)
    return len(reads) == 1 and reads[0].kind in READERS


def _only(sites: Sequence[Site], kinds: Sequence[str], name: str, does: str) -> Site:
    if len(sites) != 1 or sites[0].kind not in kinds:
        there = ", ".join(map(str, sites))
        raise ValueError(
            f"{name} {does} {there}: weights between features are of dictionaries that {does[:-1]} "
            f"one of {', '.join(kinds)}"
        )
    return sites[0]


def _device(dictionary: SparseDictionary) -> torch.device:
    return dictionary.W_dec.device
