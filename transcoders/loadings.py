"""Many edges at once by the heads that carry them, each path as two factors.

What a source adds to a target is a sum over paths. Taken out are the direct path and those through
one head alone; `rest` of an edge's weight goes through two heads or more, a skip connection, or a
mixer without heads (a gated delta net):

    weight = direct + sum over heads h of w_h + rest
    direct = (a_s * r_t)                             * (W_dec_s . R_t)
    w_h    = (a_s * pattern_h[t, s] * r_l * r_t)     * (W_dec_s . W_V_h^T W_O_h^T R_t)
              of the prompt                             of the weights, as in `transcoders.weights`

with a_s the activation (1 of a token), r = 1 / rms where the target or the layer l of the head
reads. A source that writes several layers goes by each of them. What an error writes is the
prompt's own, and so is what goes through a head whose output a gate multiplies (Qwen3.5): of these
paths no part is of the weights alone.

Nothing is swept: at each layer one product for each group of heads gives all pairs of targets and
sources, and those that are edges are taken out of it.

Axes: `edges`; `heads` in the order of `heads_of`; `pos`, `targets`, `groups`, `shared` as in
`transcoders.frozen.mixer`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_qwen.sites import Site
from transcoders.frozen.mixer import FrozenMixer
from transcoders.replacement import ReplacementModel, Targets
from transcoders.sources import FEATURE, TOKEN
from transcoders.weights import Head

PAIRS_AT_ONCE = 2**22
"Numbers of targets times sources times heads that are in memory together: 16 MB in float32."


@dataclass(frozen=True)
class Loadings:
    """Of some edges what each path adds, in units of the target's pre-activation."""

    direct: Float[Tensor, " edges"]
    heads: Float[Tensor, "edges heads"]
    direct_of_prompt: Float[Tensor, " edges"]
    "the factor of the prompt; 0 where no part is of the weights alone"
    heads_of_prompt: Float[Tensor, "edges heads"]
    pattern: Float[Tensor, "edges heads"]
    "what each head takes at the target's token of the source's, where it is on the way"


@dataclass(frozen=True)
class Readers:
    """Targets of any layers together."""

    vectors: Float[Tensor, "targets d_model"]
    "gradients to the stream that is read: the norm's frozen factor is in them"
    per_rms: Float[Tensor, " targets"]
    "the part of that factor which is of the prompt"
    position: Int[Tensor, " targets"]
    layer: Int[Tensor, " targets"]
    "heads of this layer and of lower ones come before"
    below: Int[Tensor, " targets"]
    "MLPs of lower layers than this come before"


def heads_of(model: ReplacementModel) -> list[Head]:
    """Every attention head of the model, the lowest layer first; delta nets have none."""
    return [
        Head(number, head)
        for number, layer in enumerate(model.frozen.layers)
        if _has_heads(layer.mixer)
        for head in range(_n_heads(layer.mixer))
    ]


def readers_of(model: ReplacementModel, several: Sequence[Targets]) -> Readers:
    """Targets of several sites one after another."""
    parts: list[tuple[Tensor, ...]] = []
    for targets in several:
        number, like = targets.site.layer, targets.position
        vectors, per_rms = targets.vectors, targets.per_rms
        if targets.site.kind == "mlp_in":
            norm = model.frozen.layers[number].norm
            vectors, per_rms = vectors * norm.scale[like], norm.per_rms[like]
        below = number + (targets.site.kind == "resid_post")
        if per_rms is None:
            per_rms = torch.ones_like(targets.constant)
        layers = (torch.full_like(like, at) for at in (number, below))
        parts.append((vectors, per_rms, like, *layers))
    return Readers(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


@torch.no_grad()
def loadings_of(
    model: ReplacementModel,
    readers: Readers,
    source: Int[Tensor, " edges"],
    target: Int[Tensor, " edges"],
) -> Loadings:
    """The loadings of edges from `source`, numbers of sources, to `target`, rows of the readers.

    Pairs between which nothing runs have zeros.
    """
    known, row = source.unique(return_inverse=True)
    at_key = model.sources.position[known]
    activation = _activation(model, known)
    columns, first = len(heads_of(model)), 0
    direct, of_direct = readers.vectors.new_zeros(2, len(source))
    through, of_heads, pattern = readers.vectors.new_zeros(3, len(source), columns)
    rows = _token_rows(model, known)
    for number in range(len(model.frozen.layers) + 1):
        here = (readers.below[target] == number) & (
            model.sources.position[source] == readers.position[target]
        )
        s, t = row[here], target[here]
        direct[here] = (rows[s] * readers.vectors[t]).sum(-1)
        wrote = (model.sources.layer[known[s]] < number).to(rows)
        of_direct[here] = activation[s] * readers.per_rms[t] * wrote
        if number == len(model.frozen.layers):
            break
        mixer = model.frozen.layers[number].mixer
        if _has_heads(mixer):
            span = slice(first, first + _n_heads(mixer))
            reached = (readers.layer[target] >= number) & (model.sources.layer[source] < number)
            pairs = _Pairs(reached.nonzero().squeeze(-1), row, target)
            _add_heads(mixer, readers, rows, at_key, pairs, through[:, span])
            taken = _taken(mixer, readers.position[target], at_key[row]) * reached[:, None]
            through[:, span] *= taken
            pattern[:, span] = taken
            if mixer.gate is None:
                of_ends = activation[row] * mixer.per_rms[at_key[row]] * readers.per_rms[target]
                of_heads[:, span] = taken * of_ends[:, None]
            first = span.stop
        _add_rows(model, number, known, rows)
    return Loadings(direct, through, of_direct, of_heads, pattern)


@dataclass(frozen=True)
class _Pairs:
    """The edges that pass a layer's heads."""

    on: Int[Tensor, " some"]
    "numbers of edges"
    source: Int[Tensor, " edges"]
    target: Int[Tensor, " edges"]

    def by_target(self, sources: int, heads: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Targets that are taken together, each time with their edges."""
        edges = self.on[self.target[self.on].sort(stable=True).indices]
        targets, count = self.target[edges].unique_consecutive(return_counts=True)
        at_once = max(1, PAIRS_AT_ONCE // (sources * heads))
        start = 0
        for some, counts in zip(targets.split(at_once), count.split(at_once), strict=True):
            stop = start + int(counts.sum())
            yield some, edges[start:stop]
            start = stop


def _add_heads(
    mixer: FrozenMixer,
    readers: Readers,
    rows: Float[Tensor, "sources d_model"],
    at_key: Int[Tensor, " sources"],
    pairs: _Pairs,
    out: Float[Tensor, "edges heads"],
) -> None:
    """Fill in what goes through each head of a layer where it takes all of the key."""
    if not len(pairs.on):
        return
    v = (rows @ mixer.W_V.T) * mixer.per_rms[at_key, None]
    v = v.view(len(rows), mixer.groups, -1).permute(1, 2, 0)  # groups, d_head, sources
    for targets, edges in pairs.by_target(len(rows), _n_heads(mixer)):
        z = readers.vectors[targets] @ mixer.W_O
        if mixer.gate is not None:
            z = z * mixer.gate[readers.position[targets]]
        z = z.view(len(targets), mixer.groups, -1, v.shape[1]).transpose(0, 1)
        product = z.flatten(1, 2) @ v  # groups, targets * shared, sources
        product = product.view(mixer.groups, len(targets), -1, len(rows)).transpose(1, 2)
        of = torch.searchsorted(targets, pairs.target[edges])
        out[edges] = product[:, :, of, pairs.source[edges]].flatten(0, 1).T


def _taken(
    mixer: FrozenMixer, query: Int[Tensor, " edges"], key: Int[Tensor, " edges"]
) -> Float[Tensor, "edges heads"]:
    """What each head takes at the queries of the keys, nothing of a later one."""
    found = mixer.per_rms.new_zeros(len(query), _n_heads(mixer))
    known, place = query.unique(return_inverse=True)
    at_once = max(1, PAIRS_AT_ONCE // (_n_heads(mixer) * len(mixer.per_rms)))
    for first in range(0, len(known), at_once):
        some = known[first : first + at_once]
        upto = int(some.max()) + 1
        rows = mixer.mixing.rows(some, upto)
        within = (place >= first) & (place < first + len(some)) & (key < upto)
        here = within.nonzero().squeeze(-1)
        found[here] = rows[:, :, place[here] - first, key[here]].flatten(0, 1).T
    return found


def _activation(model: ReplacementModel, known: Tensor) -> Float[Tensor, " sources"]:
    """What each source multiplies its weights by: 1 of a token, nothing of what has none."""
    kind = model.sources.kind[known]
    found = torch.where(kind == FEATURE, model.sources.activation[known], 0.0)
    return torch.where(kind == TOKEN, 1.0, found)


def _token_rows(model: ReplacementModel, known: Tensor) -> Float[Tensor, "sources d_model"]:
    rows = model.recorded.embed.new_zeros(len(known), model.recorded.embed.shape[1])
    tokens = model.sources.kind[known] == TOKEN
    rows[tokens] = model.recorded.embed[model.sources.position[known[tokens]]]
    return rows


def _add_rows(
    model: ReplacementModel, layer: int, known: Tensor, rows: Float[Tensor, "sources d_model"]
) -> None:
    """Add to `rows` what the `known` sources write at a layer."""
    if not len(known):
        return
    written = model.sources.layers[layer]
    place = torch.searchsorted(known, written.source).clamp(max=len(known) - 1)
    these = (known[place] == written.source).nonzero().squeeze(-1)
    if len(these):
        rows[place[these]] += written.some(Site("mlp_out", layer), model.dictionaries, these)


def _has_heads(mixer: FrozenMixer) -> bool:
    return mixer.convolution is None


def _n_heads(mixer: FrozenMixer) -> int:
    groups, shared = mixer.mixing.heads
    return groups * shared
