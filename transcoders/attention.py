"""Attention opened: which heads carry an edge, and why a head looks where it looks.

**Heads of an edge.** What a source adds to a target is a sum over paths. `edge_by_head` takes out
the direct path and those through one head alone; of many edges at once `transcoders.loadings` does.

**Scores.** With the denominators of the layer's norm and of the query and key norms frozen, query
and key are linear in what was written to the stream at their tokens, so that a head's score, before
the softmax, is a sum over pairs (`attention_score`):

    score[q, k] = sum over i, j of  Q_i . K_j / sqrt(d_head)
    Q_i = rotated(N_q W_Q G x_i)        N_q, G: gains over the frozen root mean squares

where x_i are the token, features, errors, biases and what earlier attention wrote, and the biases
of the projections are parts of their own. Exact: the terms add up to the score.

Source: Kamath et al. 2025, Tracing Attention Computation Through Feature Interactions
(transformer-circuits.pub).

Axes: `parts` of what stands at a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers.models.llama.modeling_llama import rotate_half

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from transcoders.frozen.attention import GATED, PLAIN
from transcoders.frozen.norm import freeze_norm
from transcoders.loadings import heads_of, loadings_of, readers_of
from transcoders.replacement import ReplacementModel
from transcoders.weights import Head

ScorePart = Node | str
"A source, or in words what is none: `bias of mlp_out.2@4`, `attn_out.1@4`, `bias of the query`."


@dataclass(frozen=True)
class ByHead:
    """An edge's weight, in units of the target's pre-activation, split by the heads it takes."""

    direct: float
    heads: dict[Head, float]
    "of paths through one head alone"
    rest: float

    @property
    def weight(self) -> float:
        return self.direct + sum(self.heads.values()) + self.rest


@dataclass(frozen=True)
class AttentionScore:
    """A head's score for one query and one key, by pairs of what each reads."""

    query: tuple[ScorePart, ...]
    key: tuple[ScorePart, ...]
    terms: Float[Tensor, "query key"]
    "of each pair; they add up to the score, before the softmax"

    @property
    def total(self) -> float:
        return float(self.terms.sum())

    def strongest(self, k: int) -> list[tuple[ScorePart, ScorePart, float]]:
        """The pairs with the largest terms by size: of the query, of the key, and the term."""
        flat = self.terms.flatten()
        at = flat.abs().topk(min(k, len(flat))).indices.tolist()
        n = len(self.key)
        return [(self.query[i // n], self.key[i % n], float(flat[i])) for i in at]


@torch.no_grad()
def edge_by_head(model: ReplacementModel, source: int, target: int) -> ByHead:
    """The weight of the edge between two sources of a prompt by the heads that carry it.

    Both are numbers of sources; the target is a feature, the source writes below it (a token, a
    feature, an error).
    """
    device = model.sources.kind.device
    wanted = model.features(torch.tensor([target], device=device))
    total = float(model.inputs(wanted).weight[source, 0])
    ends = torch.tensor([source], device=device), torch.tensor([0], device=device)
    found = loadings_of(model, readers_of(model, [wanted]), *ends)
    below = int(model.sources.layer[source]), wanted.site.layer
    direct, by_number = float(found.direct), found.heads[0].tolist()
    heads = {
        head: weight
        for head, weight in zip(heads_of(model), by_number, strict=True)
        if below[0] < head.layer <= below[1]
    }
    return ByHead(direct, heads, total - direct - sum(heads.values()))


@torch.no_grad()
def attention_score(
    hooked: TransformerBridge, model: ReplacementModel, head: Head, query: int, key: int
) -> AttentionScore:
    """The terms of a head's score for the token `query` looking at the token `key`.

    Raises `ValueError` where the key comes later, and for a layer without heads.
    """
    if key > query:
        raise ValueError(f"token {query} cannot look at token {key}, which comes after it")
    block = cast(Any, hooked.blocks[head.layer])
    own: Any = None if "linear_attn" in block.submodules else block.attn.original_component
    if type(own) not in PLAIN + GATED:
        kind = "a gated delta net" if own is None else type(own).__name__
        raise ValueError(f"layer {head.layer} is {kind}: scores are of attention heads")
    parts = {at: _stream(model, head.layer, at) for at in {query, key}}
    group = head.head // own.num_key_value_groups
    Q = _projected(hooked, model, head.layer, ("q", head.head), query, parts[query][1])
    K = _projected(hooked, model, head.layer, ("k", group), key, parts[key][1])
    return AttentionScore(
        query=(*parts[query][0], "bias of the query"),
        key=(*parts[key][0], "bias of the key"),
        terms=Q @ K.T * own.scaling,
    )


def _projected(
    hooked: TransformerBridge,
    model: ReplacementModel,
    layer: int,
    which: tuple[str, int],
    at: int,
    rows: Float[Tensor, "parts d_model"],
) -> Float[Tensor, "parts_and_bias d_head"]:
    """What each part adds to one head's query or key, rotated; the projection's bias comes last."""
    attention = cast(Any, hooked.blocks[layer]).attn
    own, name = attention.original_component, which[0]
    weight, bias = _of_head(own, attention.get_submodule(name).original_component, which)
    mixer = model.frozen.layers[layer].mixer
    norm = cast(Any, hooked.blocks[layer]).ln1.original_component
    scale = freeze_norm(norm, rows).gain * mixer.per_rms[at]
    found = torch.cat([(rows * scale) @ weight.to(rows).T, bias.to(rows)[None]])
    if (of_head := getattr(own, f"{name}_norm", None)) is not None:
        frozen = freeze_norm(_inner(of_head), found.sum(0, keepdim=True))
        found = found * frozen.scale
    place = torch.tensor([[at]], device=rows.device)
    cos, sin = _inner(hooked.rotary_emb)(rows[None], place)
    # Qwen3.5 turns the first numbers of a head only.
    turned, still = found[:, : cos.shape[-1]], found[:, cos.shape[-1] :]
    turned = turned * cos[0].to(rows) + rotate_half(turned) * sin[0].to(rows)
    return torch.cat([turned, still], -1)


def _of_head(own: Any, linear: Any, which: tuple[str, int]) -> tuple[Tensor, Tensor]:
    """One head's part of the projection of queries or keys: weight and bias."""
    name, number = which
    # A gated query's head has the numbers of its gate behind its own.
    each = own.head_dim * (2 if type(own) in GATED and name == "q" else 1)
    span = slice(number * each, number * each + own.head_dim)
    weight = linear.weight.detach()[span]
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias[span]


def _inner(module: Any) -> Any:
    return getattr(module, "original_component", module)


def _stream(
    model: ReplacementModel, layer: int, at: int
) -> tuple[list[ScorePart], Float[Tensor, "parts d_model"]]:
    """What was written to the stream at a token below a layer, row by row: they add up to it."""
    names: list[ScorePart] = [Node("embed", "token", at)]
    rows = [model.recorded.embed[at][None]]
    for below in range(layer):
        frozen, written = model.frozen.layers[below], model.sources.layers[below]
        names.append(f"attn_out.{below}@{at}")
        rows.append(model.mixed[below][at][None])
        span = written.span(at, at + 1)
        site = Site("mlp_out", below)
        rows.append(written.rows(site, model.dictionaries, at, at + 1))
        found = zip(written.dictionary[span].tolist(), written.feature[span].tolist(), strict=True)
        names += [_called(model.names, site, number, feature, at) for number, feature in found]
        if frozen.skip is not None:
            # The constant part of the skip connection is among the biases.
            constant = frozen.mixer.constant()[at] * frozen.norm.scale[at]
            read = model.read(Site("mlp_in", below))[at] - constant
            names.append(f"skip connection of {site}@{at}")
            rows.append((read @ frozen.skip.T)[None])
    return names, torch.cat(rows)


def _called(names: Sequence[str], site: Site, number: int, feature: int, at: int) -> ScorePart:
    if number >= 0:
        return Node(names[number], feature, at)
    return Node(str(site), "error", at) if number == -1 else f"bias of {site}@{at}"
