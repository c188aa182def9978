"""What mixes tokens in a layer, as the linear map that it is once its pattern is frozen.

Softmax attention and the gated delta net have one form. Of the stream x, with r = 1/rms frozen,

    u[k]   = r[k] * x[k] @ W_V.T                 the norm's gain folded into W_V
    v[k]   = ratio[k] * conv(u)[k] + b_V         attention: v = u + b_V
    z[q,h] = gate[q,h] * sum over k of pattern[h,q,k] * v[k, group of h]
    y[q]   = z[q] @ W_O.T + b_O

`pattern` (`transcoders.frozen.pattern`), `ratio`, `gate` and r are constants of the prompt;
queries, keys, their norms and rotary angles live in the pattern alone. Heads of one group share
their values (grouped queries): groups come first, then the heads of each.

Axes: `pos` tokens of the prompt, `upto` the first of them, `batch` streams or gradients carried at
once, `groups` value heads, `shared` heads that share one, `value` = groups * d_head, `mixed` =
heads * d_head, `taps` of a convolution.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.frozen.pattern import Pattern


@dataclass(frozen=True)
class FrozenConvolution:
    """A causal convolution of each value channel, and the frozen SiLU after it.

    v[k] = ratio[k] * sum over j of taps[j] * u[k - last + j]        ratio = silu(c) / c
    """

    taps: Float[Tensor, "value taps"]
    ratio: Float[Tensor, "pos value"]
    "sigmoid of what the convolution gave in the prompt"

    def forward(self, u: Float[Tensor, "pos batch value"]) -> Float[Tensor, "pos batch value"]:
        """What becomes of values `u`."""
        last = self.taps.shape[1] - 1
        padded = F.pad(u, (0, 0, 0, 0, last, 0))
        mixed = sum(padded[j : j + len(u)] * self.taps[:, j] for j in range(last + 1))
        return mixed * self.ratio[:, None]

    def adjoint(self, g: Float[Tensor, "upto batch value"]) -> Float[Tensor, "upto batch value"]:
        """The gradient to `u`; nothing comes from tokens after those of `g`."""
        last, n = self.taps.shape[1] - 1, len(g)
        padded = F.pad(g * self.ratio[:n, None], (0, 0, 0, 0, 0, last))
        parts = (padded[last - j : last - j + n] * self.taps[:, j] for j in range(last + 1))
        return torch.stack(list(parts)).sum(0)


@dataclass(frozen=True)
class FrozenMixer:
    """The map from the residual stream before a layer to what its token mixer adds to it."""

    mixing: Pattern
    "what each head takes at a query of each key"
    per_rms: Float[Tensor, " pos"]
    W_V: Float[Tensor, "value d_model"]
    W_O: Float[Tensor, "d_model mixed"]
    gate: Float[Tensor, "pos mixed"] | None = None
    convolution: FrozenConvolution | None = None
    b_V: Float[Tensor, " value"] | None = None
    b_O: Float[Tensor, " d_model"] | None = None

    @property
    def groups(self) -> int:
        return self.mixing.heads[0]

    @property
    def pattern(self) -> Float[Tensor, "groups shared pos pos"]:
        """All of it: heads x tokens^2 numbers."""
        pos = len(self.per_rms)
        return self.mixing.rows(torch.arange(pos, device=self.per_rms.device), pos)

    def forward(self, x: Float[Tensor, "pos batch d_model"]) -> Float[Tensor, "pos batch d_model"]:
        """What streams `x` add at every token, without what the biases do."""
        u = (x @ self.W_V.T) * self.per_rms[:, None, None]
        return self._onward(u if self.convolution is None else self.convolution.forward(u))

    def constant(self) -> Float[Tensor, "pos d_model"]:
        """What the biases add at every token, whatever the stream is."""
        pos, width = len(self.per_rms), self.W_O.shape[0]
        found = self.per_rms.new_zeros(pos, width)
        if self.b_V is not None:
            found = self._onward(self.b_V.expand(pos, 1, -1)).squeeze(1)
        return found if self.b_O is None else found + self.b_O

    def _onward(self, v: Float[Tensor, "pos batch value"]) -> Float[Tensor, "pos batch d_model"]:
        """From values to the output."""
        pos, batch = v.shape[:2]
        by_group = v.view(pos, batch, self.groups, -1).permute(2, 0, 1, 3).flatten(2)
        z = self.mixing.forward(by_group)  # groups, shared, query, batch * d_head
        z = z.view(*z.shape[:3], batch, -1).permute(2, 3, 0, 1, 4).reshape(pos, batch, -1)
        return (z if self.gate is None else z * self.gate[:, None]) @ self.W_O.T

    def adjoint(
        self, g: Float[Tensor, "upto batch d_model"]
    ) -> Float[Tensor, "upto batch d_model"]:
        """The gradient to the stream, where `g` is the gradient to the output.

        Tokens after those of `g` have none, and no later token is reached.
        """
        upto, batch = g.shape[:2]
        z = g @ self.W_O
        if self.gate is not None:
            z = z * self.gate[:upto, None]
        z = z.view(upto, batch, self.groups, -1, self._d_head).permute(2, 3, 0, 1, 4)
        v = self.mixing.adjoint(z.flatten(3))
        return self._back(v.view(self.groups, upto, batch, -1).permute(1, 2, 0, 3))

    def adjoint_at(
        self,
        g: Float[Tensor, "batch d_model"],
        position: Int[Tensor, " batch"],
        upto: int,
    ) -> Float[Tensor, "upto batch d_model"]:
        """`adjoint` where each gradient is of one token alone, at its `position`."""
        z = g @ self.W_O
        if self.gate is not None:
            z = z * self.gate[position]
        z = z.view(len(g), self.groups, -1, self._d_head)
        pattern = self.mixing.rows(position, upto)
        return self._back(torch.einsum("gsbk,bgsd->kbgd", pattern, z))

    def _back(
        self, v: Float[Tensor, "upto batch groups d_head"]
    ) -> Float[Tensor, "upto batch d_model"]:
        """From a gradient to the values to one to the stream."""
        g = v.flatten(2)
        if self.convolution is not None:
            g = self.convolution.adjoint(g)
        return (g * self.per_rms[: len(g), None, None]) @ self.W_V

    @property
    def _d_head(self) -> int:
        return self.W_V.shape[0] // self.groups
