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

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeGatedDeltaNet

from transcoders.frozen.mixer import FrozenConvolution, FrozenMixer
from transcoders.frozen.norm import FrozenNorm
from transcoders.frozen.pattern import BLOCK, blocks

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
    out = pattern.forward(per_group)[:, 0].transpose(0, 1)
    gain = net.norm.weight.detach().to(x)
    per_rms = torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + net.norm.variance_epsilon)
    opened = F.silu(read @ net.in_proj_z.weight.detach().to(x).T)
    return FrozenMixer(
        mixing=pattern,
        per_rms=norm.per_rms,
        W_V=W_V * norm.gain,
        W_O=net.out_proj.weight.detach().to(x),
        gate=(per_rms * gain).flatten(1) * opened,
        convolution=FrozenConvolution(taps[2], ratio),
    )


@dataclass(frozen=True)
class Delta:
    """The pattern of the gated delta rule, solved some tokens at a time.

    With L = strictly_tril(beta K K' * D), the values that are written are x = (1 + L)^-1 beta v:
    what is left of each once the state's own guess is off.
    """

    query: Float[Tensor, "heads pos d_head"]
    key: Float[Tensor, "heads pos d_head"]
    log_decay: Float[Tensor, "heads pos"]
    beta: Float[Tensor, "heads pos"]
    at_once: int = BLOCK

    @property
    def heads(self) -> tuple[int, int]:
        return len(self.key), 1

    def forward(
        self, v: Float[Tensor, "heads key columns"]
    ) -> Float[Tensor, "heads 1 query columns"]:
        """What is read of the values `v`."""
        x = self.beta[..., None] * v
        z = torch.empty_like(x)
        for first, last in self._blocks(x.shape[1]):
            here = slice(first, last)
            L = self._written(here)
            x[:, here] -= L[..., :first] @ x[:, :first]
            x[:, here] = _solved(L[..., first:], x[:, here], upper=False)
            z[:, here] = self._read(torch.arange(first, last, device=v.device), last) @ x[:, :last]
        return z.unsqueeze(1)

    def adjoint(
        self, z: Float[Tensor, "heads 1 upto columns"]
    ) -> Float[Tensor, "heads upto columns"]:
        """The gradient to the values."""
        found = torch.zeros_like(z[:, 0])
        for first, last in self._blocks(z.shape[2]):
            read = self._read(torch.arange(first, last, device=z.device), last)
            found[:, :last] += read.mT @ z[:, 0, first:last]
        return self._back(found)

    def rows(self, queries: Int[Tensor, " some"], upto: int) -> Float[Tensor, "heads 1 some upto"]:
        """What some queries take of the first keys."""
        last = max(upto, int(queries.max()) + 1)
        return self._back(self._read(queries, last).mT)[:, :upto].mT.unsqueeze(1)

    def _back(self, x: Float[Tensor, "heads upto columns"]) -> Float[Tensor, "heads upto columns"]:
        """From a gradient to what is written to one to the values."""
        x = x.clone()
        for first, last in reversed(self._blocks(x.shape[1])):
            here = slice(first, last)
            L = self._written(here)
            x[:, here] = _solved(L[..., first:].mT, x[:, here], upper=True)
            x[:, :first] -= L[..., :first].mT @ x[:, here]
        return x * self.beta[:, : x.shape[1], None]

    def _written(self, here: slice) -> Float[Tensor, "heads some last"]:
        """Rows of L up to the last of them; what is not below the diagonal is not read."""
        tokens = torch.arange(here.start, here.stop, device=self.key.device)
        decay = self._decay(tokens, here.stop)
        products = self.key[:, here] @ self.key[:, : here.stop].mT
        return self.beta[:, here, None] * products * decay

    def _read(self, queries: Int[Tensor, " some"], upto: int) -> Float[Tensor, "heads some upto"]:
        """What queries read of what was written."""
        return (self.query[:, queries] @ self.key[:, :upto].mT) * self._decay(queries, upto)

    def _decay(self, queries: Int[Tensor, " some"], upto: int) -> Float[Tensor, "heads some upto"]:
        """What is left at some tokens of what was written at each before; 0 of later ones."""
        total = self.log_decay.cumsum(-1)
        # Only what lies behind is decayed: masked before the exponential, which could overflow.
        ahead = torch.arange(upto, device=queries.device) > queries[:, None]
        lost = total[:, queries, None] - total[:, None, :upto]
        return lost.masked_fill(ahead, -torch.inf).exp()

    def _blocks(self, upto: int) -> list[tuple[int, int]]:
        return blocks(upto, len(self.key) * self.key.element_size(), self.at_once)


def _solved(L: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    return torch.linalg.solve_triangular(L, right, upper=upper, unitriangular=True)


def _pattern(net: Any, query: Tensor, key: Tensor, read: Tensor) -> Delta:
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
    return Delta(q / q.shape[-1] ** 0.5, k, log_decay, beta)


def _convolved(u: Float[Tensor, "pos value"], taps: Float[Tensor, "value taps"]) -> Tensor:
    whole = FrozenConvolution(taps, torch.ones_like(u))
    return whole.forward(u.unsqueeze(1)).squeeze(1)
