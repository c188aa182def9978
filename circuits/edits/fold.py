"""Fold an edit into a model's weights, where weights alone can do it exactly.

An operation that is affine in the feature, at every token and without a condition, makes
f_i' = m f_i + c. Feature i of an SAE that is on is w_i x + b_i of what its site's tensor x is, so

    x' = x + sum over i ((m_i - 1) (w_i x + b_i) + c_i) d_i = A x + v

    A = I + sum (m_i - 1) d_i w_i^T        v = sum (c_i + (m_i - 1) b_i) d_i

| site         | A                                       | v                                       |
|--------------|-----------------------------------------|-----------------------------------------|
| attn_out.L   | into o_proj: A W                        | a bias of o_proj                        |
| mlp_out.L    | into down_proj: A W                     | a bias of down_proj                     |
| resid_post.L | no matrix writes the stream: A must be 1 | a bias of down_proj, which adds to it  |

A is 1 where features are only added to (m = 1): that is exact for any dictionary. Else the feature
must be on at every token: always where the dictionary has no activation function (topk of all
features, of either sign, as a single direction is), otherwise only as far as it was seen to be.

Qwen2 has no bias where it is needed, and neither has Qwen3 in its MLPs. Qwen3's configuration has
one for attention (`attention_bias`); a Qwen2 model is saved as the Llama that computes the same,
whose attention and MLPs have biases.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.edit_file import Edit, Operation
from saes.operations import kind_of
from saes.suite import Suite

HEAD = "lm_head.weight"
NamedWeights = dict[str, Tensor]


class CannotFold(ValueError):
    """Why weights alone cannot do what an edit does."""


@dataclass(frozen=True)
class FoldedModel:
    """A model's weights and configuration with an edit in them."""

    config: Any
    weights: NamedWeights
    changed: tuple[str, ...]
    "names of the tensors that are not the model's own"
    where_on: tuple[Node, ...]
    "features that it is exact for only where they are on"


def plain_weights(model: TransformerBridge) -> NamedWeights:
    """The model's weights as Hugging Face calls them."""
    named = model.original_model.named_parameters()
    return {re.sub(r"_original_component\.", "", name): p.detach() for name, p in named}


def saved_model(config: Any, weights: NamedWeights) -> PreTrainedModel:
    """A Hugging Face model of a configuration around these tensors, to be saved."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config)
    missing, unexpected = plain.load_state_dict(weights, assign=True, strict=False)
    tied = {HEAD} if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ValueError(
            f"the weights do not fit {type(plain).__name__}: {', '.join([*missing, *unexpected])}"
        )
    plain.tie_weights()
    return plain


def fold(model: TransformerBridge, suite: Suite, edit: Edit) -> FoldedModel:
    """The weights that do what the edit does; raises `CannotFold` with the reason where none do."""
    by_site: dict[Site, list[Operation]] = {}
    for op in edit.operations:
        site = _foldable(suite, op)
        by_site.setdefault(site, []).append(op)
    weights, changed, where_on = plain_weights(model), [], []
    config: Any = model.original_model.config
    biases: NamedWeights = {}
    for site, operations in by_site.items():
        dictionary = suite[str(site)]
        moves = _affine(operations, edit)
        A, v, on = _map(dictionary, moves)
        name = _matrix(model, site)
        if A is not None:
            if site.kind == "resid_post":
                raise CannotFold(f"no matrix writes the whole stream, which {on[0]} is read from")
            where_on += on if not is_linear(dictionary) else []
            weights[name] = (A @ weights[name].to(A)).to(weights[name])
            changed.append(name)
        if v.any():
            bias = name.replace(".weight", ".bias")
            biases[bias] = biases.get(bias, torch.zeros_like(v)) + v
    if biases:
        like = weights[next(iter(weights))]
        config, more = _with_biases(config, biases, weights)
        weights |= {n: b.to(like) for n, b in more.items()}
        changed += [name for name in biases if name not in changed]
    return FoldedModel(config, weights, tuple(changed), tuple(where_on))


def is_linear(dictionary: SparseDictionary) -> bool:
    """Whether features are what they read, on at every token: there is no activation function."""
    spec = dictionary.spec
    return spec.architecture == "topk" and spec.signed and spec.k == dictionary.n_features


def _foldable(suite: Suite, op: Operation) -> Site:
    """The site at which an operation might be folded; raises `CannotFold`."""
    node = op.node
    if node.kind == "error" or node.feature == EVERY:
        raise CannotFold(f"{node} is no single feature")
    placed = op.positions != "all" or node.position is not None or bool(op.norm_below)
    if op.when is not None or placed:
        raise CannotFold(f"{op.do} of {node} is done at some tokens only")
    reads, writes = suite.reads_of(node.site), suite.writes_of(node.site)
    if len(writes) != 1:
        raise CannotFold(f"{node.site} writes several sites")
    site = writes[0]
    if kind_of(op.do).affine is None:
        raise CannotFold(f"{op.do} is no affine map of the feature")
    if reads != writes and op.do != "add":
        raise CannotFold(f"{node} is read elsewhere than it is written: only add can be folded")
    if site.kind not in ("attn_out", "mlp_out", "resid_post"):
        raise CannotFold(f"no weights write {site} alone")
    return site


def _affine(operations: Iterable[Operation], edit: Edit) -> dict[int, tuple[float, float]]:
    """Of each feature m and c: it becomes m f + c, whatever is done to it in order."""
    found: dict[int, tuple[float, float]] = {}
    for op in operations:
        m, c = found.get(int(op.node.feature), (1.0, 0.0))
        affine = kind_of(op.do).affine
        assert affine is not None, "looked up before"
        times, plus = affine(edit.mean_of(op.node) if op.needs == "mean" else op.value)
        found[int(op.node.feature)] = times * m, times * c + plus
    return found


def _map(
    dictionary: SparseDictionary, moves: dict[int, tuple[float, float]]
) -> tuple[Float[Tensor, "d d"] | None, Float[Tensor, " d"], list[Node]]:
    """A, None where it is 1; v; and the features that must be on."""
    rows = torch.tensor(list(moves), device=dictionary.W_dec.device)
    both = torch.tensor(list(moves.values()), dtype=torch.float64).to(rows.device)
    m, c = both.unbind(1)
    W_dec, W_enc = dictionary.W_dec[rows].double(), dictionary.W_enc[rows].double()
    b = dictionary.b_enc[rows].double()
    on = [Node(dictionary.name, i) for i, (m_i, _) in moves.items() if m_i != 1]
    if not on:
        return None, c @ W_dec, []
    eye = torch.eye(W_dec.shape[1], dtype=W_dec.dtype, device=W_dec.device)
    return eye + W_dec.T @ ((m - 1)[:, None] * W_enc), (c + (m - 1) * b) @ W_dec, on


def _matrix(model: TransformerBridge, site: Site) -> str:
    """The name of the matrix that writes a site, or adds to the stream there."""
    part = "self_attn.o_proj" if site.kind == "attn_out" else "mlp.down_proj"
    name = f"model.layers.{site.layer}.{part}.weight"
    if name not in plain_weights(model):
        raise CannotFold(f"{site} is not written by one matrix in this model")
    return name


def _with_biases(
    config: Any, biases: NamedWeights, weights: NamedWeights
) -> tuple[Any, NamedWeights]:
    """A configuration with these biases, and all that come with it: zero where not asked for."""
    asked = {"o_proj" if "o_proj" in name else "down_proj" for name in biases}
    if config.model_type == "qwen3" and asked == {"o_proj"}:
        made, parts = _copy(config, attention_bias=True), ("q_proj", "k_proj", "v_proj", "o_proj")
    elif config.model_type == "qwen2" and not config.use_sliding_window:
        made, parts = _as_llama(config), (
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        )  # fmt: skip
    else:
        raise CannotFold(
            f"a {config.model_type} model has no bias in {' and '.join(sorted(asked))} to add to"
        )
    more: NamedWeights = {}
    for name, weight in weights.items():
        bias = name.removesuffix(".weight") + ".bias"
        if name.split(".")[-2] in parts and name.endswith(".weight") and bias not in weights:
            more[bias] = biases.get(bias, weight.new_zeros(len(weight)))
    return made, more


def _as_llama(config: Any) -> LlamaConfig:
    """The Llama that computes what a Qwen2 model does, with biases everywhere."""
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
        "initializer_range", "rms_norm_eps", "use_cache", "tie_word_embeddings", "rope_parameters",
        "attention_dropout", "pad_token_id", "bos_token_id", "eos_token_id", "dtype",
    )  # fmt: skip
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = {name: getattr(config, name) for name in same}
    return LlamaConfig(**kept, head_dim=width, attention_bias=True, mlp_bias=True)


def _copy(config: Any, **changes: Any) -> Any:
    return type(config)(**{**config.to_dict(), **changes})
