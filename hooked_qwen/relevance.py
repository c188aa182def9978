"""Backward passes by relevance rules: the model made linear around the prompt it runs on.

Attribution by gradient is first order in a move, and a model's nonlinearities bend at once: a norm
undoes the growth of its input, a gate is a product. The rules hold the bending part constant, at
its value in the forward pass, so that a gradient says what each part wrote:

    RMSNorm      y = x * [gain / rms(x)]      the denominator is a constant
    SiLU         y = x * [sigmoid(x)]         silu(x) / x, 1/2 at x = 0, is a constant
    gate         h = a * u                    half of the product rule: dh = (u da + a du) / 2
    attention    z = [pattern] v              the softmax is a constant: no gradient to q and k

What stands in brackets carries no gradient. Everything else is linear already, so where values
have no bias `sum over tokens of x . dm/dx` is the metric m itself (relevance is conserved), for
any m linear in the logits, where `x` is a tensor that the whole residual stream passes through.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.activations import SiLUActivation
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP, Qwen3RMSNorm

from hooked_qwen.hook_points import token_mixer

NORMS = (Qwen2RMSNorm, Qwen3RMSNorm)
ATTENTION = (Qwen2Attention, Qwen3Attention)
MLPS = (Qwen2MLP, Qwen3MLP)
ACTIVATIONS = (SiLUActivation,)
NamedModule = tuple[str, Any]


@contextmanager
def relevance_rules(model: TransformerBridge) -> Generator[None, None, None]:
    """Make every forward pass inside the block differentiate by the rules above.

        y = linear(x) with brackets constant      forward: the model's own y, to the last bit

    Gradients follow the rules wherever they are taken, as long as the forward pass ran inside.
    The weights are not touched, and `capture`, `intervene`, `resume` and `unembed` work as ever.

    Units: gradients keep theirs, metric per unit of the tensor; positive raises the metric.

    Raises `ValueError` for a module without a rule (a gated delta net, a mixture of experts),
    for TransformerLens modes that compute around these modules, and for a block inside another,
    which would halve the gates twice.

    Source: RelP, Jafari et al. 2025, arXiv:2508.21258; norm and attention rules of Ali et al.
    2022, arXiv:2202.07304; Achtibat et al. 2024, arXiv:2402.05602 (AttnLRP).
    Differs: the pattern is always constant, which the code of RelP leaves as an option, and where
    AttnLRP shares relevance between pattern and values; SiLU's ratio is the sigmoid, exact at 0,
    where that code adds 1e-6 to the divisor. Linear layers keep their gradient (the 0-rule).
    """
    norms, mixers, mlps = _parts(model)
    _require_known(norms, mixers, mlps)
    _require_plain(model, mlps)
    with ExitStack() as stack:
        for _, norm in norms:
            stack.callback(norm.original_component.register_forward_hook(_norm_rule).remove)
        for _, attention in mixers:
            for projection in (attention.q, attention.k):
                stack.callback(projection.register_forward_hook(_constant).remove)
        for _, mlp in mlps:
            act = mlp.original_component.act_fn
            stack.callback(act.register_forward_hook(_silu_rule).remove)
            stack.callback(mlp.out.register_forward_pre_hook(_half_rule).remove)
        yield


def _norm_rule(norm: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if not output.requires_grad:
        return output
    # Of several devices, the norm's own: what comes in may come from another.
    x = args[0].to(output.device)
    wide = x.detach().float()
    gain, eps = cast(Tensor, norm.weight), cast(float, norm.variance_epsilon)
    # In float32, as the model computes it whatever its own type.
    per_rms = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return _value_and_gradient(output, x * (gain.detach() * per_rms.to(x.dtype)))


def _silu_rule(_act: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if not output.requires_grad:
        return output
    (x,) = args
    return _value_and_gradient(output, x * torch.sigmoid(x.detach()))


def _half_rule(_out: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Before the hooks of the down projection, which see the product with its whole gradient."""
    product, *rest = args
    if not product.requires_grad:
        return args
    return _value_and_gradient(product, product / 2), *rest


def _constant(_projection: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Queries and keys reach the output only through the pattern."""
    return output.detach()


def _value_and_gradient(value: Tensor, linear: Tensor) -> Tensor:
    """`value` to the last bit, with the gradient of `linear`."""
    return value.detach() + (linear - linear.detach())


def _parts(
    model: TransformerBridge,
) -> tuple[list[NamedModule], list[NamedModule], list[NamedModule]]:
    """Norms, token mixers and MLPs by name; the norms of queries and keys lie in the pattern."""
    norms: list[NamedModule] = [("ln_final", model.ln_final)]
    mixers: list[NamedModule] = []
    mlps: list[NamedModule] = []
    for layer, each in enumerate(model.blocks):
        block, name = cast(Any, each), f"blocks.{layer}"
        mixer = cast(Any, token_mixer(block))
        norms += [(f"{name}.ln1", block.ln1), (f"{name}.ln2", block.ln2)]
        mixer_name = "linear_attn" if "linear_attn" in block.submodules else "attn"
        mixers.append((f"{name}.{mixer_name}", mixer))
        mlps.append((f"{name}.mlp", block.mlp))
    return norms, mixers, mlps


def _require_known(
    norms: list[NamedModule], mixers: list[NamedModule], mlps: list[NamedModule]
) -> None:
    """Raise `ValueError` naming each kind of module without a rule and where it first stands.

    Types are compared exactly: a subclass may compute something else.
    """
    unknown: dict[str, str] = {}
    for parts, known in ((mixers, ATTENTION), (mlps, MLPS), (norms, NORMS)):
        for name, part in parts:
            kind = type(part.original_component)
            if kind not in known:
                unknown.setdefault(kind.__name__, name)
    for name, mlp in mlps:
        act = getattr(mlp.original_component, "act_fn", None)
        if act is not None and type(act) not in ACTIVATIONS:
            unknown.setdefault(type(act).__name__, f"{name}.act_fn")
    if unknown:
        found = ", ".join(f"{name} ({kind})" for kind, name in unknown.items())
        known = ", ".join(t.__name__ for t in ATTENTION + MLPS + ACTIVATIONS + NORMS)
        raise ValueError(
            f"there is no relevance rule for {found}: the rules know {known}. "
            "Use an estimator with plain gradients for this model"
        )


def _require_plain(model: TransformerBridge, mlps: list[NamedModule]) -> None:
    """Raise `ValueError` where the rules' modules would be bypassed, or have their rules already.

    In these modes TransformerLens computes with copies of the weights, past the modules' hooks.
    """
    modes = [n for n in ("use_split_qkv_input", "use_attn_in") if getattr(model.cfg, n, False)]
    if model.compatibility_mode:
        modes.append("compatibility mode")
    if modes:
        raise ValueError(
            f"the relevance rules need the model as loaded, this one is in {', '.join(modes)}: "
            "load it again"
        )
    if any(_half_rule in mlp.out._forward_pre_hooks.values() for _, mlp in mlps):
        raise ValueError(
            "the model is inside relevance_rules already: leave that block before the next"
        )
