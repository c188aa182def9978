"""The gated delta net of Qwen3.5 with everything frozen that is not its values.

Each head keeps a state S, written at every token by the delta rule and read by the query:

    S_t = decay_t * (S_{t-1} - beta_t k_t (k_t' S_{t-1})) + beta_t k_t v_t'        o_t = S_t' q_t

What is linear then: with queries, keys, decays (`exp(g)`), write strengths (`beta`) frozen, o is a
linear function of the values, and so a causal *pattern* over tokens like that of attention:

    pattern = tril(Q K' * D) (1 + strictly_tril(beta K K' * D))^-1 beta

where D_ts is the product of the decays after s up to t.

The values are a short convolution of the stream, then a SiLU; its ratio silu(c) / c is frozen. So
are the denominator of the output's norm and its gate silu(z).

Differs: nothing here says why a state was written or kept; that lives in the frozen part, as why a
head looks where it looks does in a frozen attention pattern.

Source: Yang et al. 2024, arXiv:2412.06464 (gated delta networks).
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeGatedDeltaNet

from transcoders.frozen.mixer import FrozenConvolution, FrozenMixer
from transcoders.frozen.norm import FrozenNorm

DELTA_NETS = (Qwen3_5GatedDeltaNet, Qwen3_5MoeGatedDeltaNet)
EPSILON = 1e-6
"Of the norm of queries and keys."


def freeze_delta_net(net: Any, norm: FrozenNorm, x: Float[Tensor, "pos d_model"]) -> FrozenMixer:
    """The net where the stream is `x`, `norm` is what it reads through.

    Raises `ValueError` for a kind of net that is not known.
    """
    if type(net) not in DELTA_NETS:
        known = ", ".join(each.__name__ for each in DELTA_NETS)
        raise ValueError(f"cannot freeze the token mixer {type(net).__name__}: expected {known}")
    read = x * norm.scale
    sizes = [net.key_dim, net.key_dim, net.value_dim]
    W_q, W_k, W_V = net.in_proj_qkv.weight.detach().to(x).split(sizes)
    taps = net.conv1d.weight.detach().to(x).squeeze(1).split(sizes)
    q, k, before = (_convolved(read @ W.T, t) for W, t in zip((W_q, W_k, W_V), taps, strict=True))
    v, ratio = F.silu(before), before.sigmoid()
    query, key = (F.silu(each).view(len(x), net.num_k_heads, -1) for each in (q, k))
    pattern = _pattern(net, query, key, read)
    per_group = rearrange(v, "pos (heads d) -> heads pos d", heads=net.num_v_heads)
    out = (pattern @ per_group).transpose(0, 1)
    gain = net.norm.weight.detach().to(x)
    per_rms = torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + net.norm.variance_epsilon)
    opened = F.silu(read @ net.in_proj_z.weight.detach().to(x).T)
    return FrozenMixer(
        pattern=pattern.unsqueeze(1),
        per_rms=norm.per_rms,
        W_V=W_V * norm.gain,
        W_O=net.out_proj.weight.detach().to(x),
        gate=(per_rms * gain).flatten(1) * opened,
        convolution=FrozenConvolution(taps[2], ratio),
    )


def delta_pattern(
    query: Float[Tensor, "heads pos d_head"],
    key: Float[Tensor, "heads pos d_head"],
    log_decay: Float[Tensor, "heads pos"],
    beta: Float[Tensor, "heads pos"],
) -> Float[Tensor, "heads pos pos"]:
    """What each token reads of the values written at each token before it."""
    total = log_decay.cumsum(-1)
    # Only what lies behind is decayed: masked before the exponential, which could overflow.
    ahead = torch.ones(2 * total.shape[-1:], dtype=torch.bool, device=total.device).triu(1)
    decay = (total[:, :, None] - total[:, None]).masked_fill(ahead, -torch.inf).exp()
    written = beta[..., None] * (key @ key.mT) * decay
    read = (query @ key.mT) * decay
    # (1 + strictly lower)^-1 beta: what is left of each value once the state's own guess is off.
    left = torch.linalg.solve_triangular(
        written, torch.diag_embed(beta), upper=False, unitriangular=True
    )
    return read @ left


def _pattern(net: Any, query: Tensor, key: Tensor, read: Tensor) -> Tensor:
    shared = net.num_v_heads // net.num_k_heads
    q, k = (
        (each * torch.rsqrt(each.pow(2).sum(-1, keepdim=True) + EPSILON))
        .repeat_interleave(shared, 1)
        .transpose(0, 1)
        for each in (query, key)
    )
    beta = (read @ net.in_proj_b.weight.detach().to(read).T).sigmoid().T
    step = read @ net.in_proj_a.weight.detach().to(read).T + net.dt_bias.detach().to(read)
    log_decay = -(net.A_log.detach().to(read).exp() * F.softplus(step)).T
    return delta_pattern(q / q.shape[-1] ** 0.5, k, log_decay, beta)


def _convolved(u: Float[Tensor, "pos value"], taps: Float[Tensor, "value taps"]) -> Tensor:
    whole = FrozenConvolution(taps, torch.ones_like(u))
    return whole.forward(u.unsqueeze(1)).squeeze(1)
