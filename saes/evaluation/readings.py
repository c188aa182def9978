"""One file of weights read in many ways: what each leaves unexplained of real activations.

The arithmetic of `saes.formats.terms` as it is published, nothing folded, so that the product with
the encoder is made once for all of them:

    p = a_t ((x - mean - o_t) @ W_enc.T) - W_enc @ c + b_enc
    y = (f @ W_dec + b_dec (+ a_t x @ W_skip.T)) / b_t + o_t + mean

a_t, b_t and o_t may be those of the token.

Axes: `tokens`; `m` features, `s` and `t` the widths of what is read and written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saes.features import largest, weighted_rows
from saes.formats.terms import Terms
from saes.nonlinearities import above_threshold

AT_ONCE = 256
"Tokens whose pre-activations are in memory."


@dataclass(frozen=True)
class Scaling:
    """What the input is multiplied by, and the output divided by: one number, or one a token."""

    a: float | Float[Tensor, "tokens 1"] = 1.0
    b: float | Float[Tensor, "tokens 1"] = 1.0
    offset: float | Float[Tensor, "tokens 1"] = 0.0
    "subtracted of every coordinate before, added after"

    def of(self, tokens: slice) -> "Scaling":
        """That of some tokens."""
        parts = (self.a, self.b, self.offset)
        return Scaling(*(x[tokens] if isinstance(x, Tensor) else x for x in parts))


@dataclass(frozen=True)
class ReadingVariant:
    """One way to read a file, all else being as its terms say."""

    scaling: Scaling
    centre: Float[Tensor, " s"] | None
    signed: bool


class Reader:
    """A file's weights, ready to be read in many ways."""

    def __init__(self, terms: Terms, tensors: Mapping[str, Tensor], like: Tensor) -> None:
        w = {name: value.to(like) for name, value in terms.ours(tensors).items()}
        self.terms, self.W_enc, self.W_dec = terms, w["W_enc"], w["W_dec"]
        zeros = self.W_enc.new_zeros
        self.b_dec = w.get("b_dec", zeros(self.W_dec.shape[1]))
        self.mean = w.get("mean")
        self.b_enc = w.get("b_enc", zeros(len(self.W_enc)))
        self.skip, self.gate = w.get("W_skip"), None
        self.threshold = w["log_threshold"].exp() if "log_threshold" in w else w.get("threshold")
        if "r_mag" in w:
            self.gate = w["b_gate"], w["r_mag"].exp(), w["b_mag"]
            self.b_enc = torch.zeros_like(self.b_enc)
        norm = self.W_dec.norm(dim=-1)
        self.norm = norm if terms.ranked_by == "norm" and terms.architecture != "relu" else None
        self.row_sums = self.W_enc.sum(1)

    def forget(self, seed: int) -> None:
        """Random weights in the place of its own: rows of the same lengths, the biases kept.

        What is read and written is one direction for each feature, where the widths are one.
        """
        generator = torch.Generator().manual_seed(seed)
        for name in ("W_enc", "W_dec"):
            rows = getattr(self, name)
            if name == "W_enc" or rows.shape != self.W_enc.shape:
                drawn = torch.randn(rows.shape, generator=generator).to(rows)
                drawn /= drawn.norm(dim=-1, keepdim=True)
            setattr(self, name, drawn * rows.norm(dim=-1, keepdim=True))
        self.row_sums = self.W_enc.sum(1)

    def errors(
        self,
        x: Float[Tensor, "tokens s"],
        y: Float[Tensor, "tokens t"],
        ways: Mapping[str, ReadingVariant],
    ) -> dict[str, Float[Tensor, " tokens"]]:
        """The squared error of every token, read in each of the ways; in float64."""
        shifts = {name: self._shift(way.centre) for name, way in ways.items()}
        found: dict[str, list[Tensor]] = {name: [] for name in ways}
        for start in range(0, len(x), AT_ONCE):
            tokens = slice(start, start + AT_ONCE)
            raw = x[tokens] if self.mean is None else x[tokens] - self.mean
            product = raw @ self.W_enc.T
            skipped = 0.0 if self.skip is None else x[tokens] @ self.skip.T
            mean = 0.0 if self.mean is None else self.mean
            for name, way in ways.items():
                s = way.scaling.of(tokens)
                u = s.a * (product - s.offset * self.row_sums) + shifts[name]
                scaled = self._written(u, signed=way.signed) + self.b_dec + s.a * skipped
                y_hat = scaled / s.b + s.offset + mean
                found[name].append((y[tokens] - y_hat).double().square().sum(-1))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _shift(self, centre: Tensor | None) -> Tensor:
        if centre is None:
            return self.b_enc
        shifted = self.b_enc.double() - self.W_enc.double() @ centre.to(self.W_enc).double()
        return shifted.to(self.b_enc)

    def _written(self, p: Float[Tensor, "tokens m"], *, signed: bool) -> Float[Tensor, "tokens t"]:
        """What the features that are on write."""
        if self.gate is not None:
            b_gate, scale, b_mag = self.gate
            return ((p + b_gate > 0) * (scale * p + b_mag).relu()) @ self.W_dec
        p = p if self.norm is None else p * self.norm
        rows = self.W_dec
        if self.norm is not None:
            rows = rows / self.norm.where(self.norm > 0, 1.0)[:, None]
        if self.terms.architecture == "topk":
            assert self.terms.k is not None, "terms of topk have a k"
            return weighted_rows(largest(p, self.terms.k, signed=signed), rows)
        f = p.relu() if self.threshold is None else above_threshold(p, self.threshold)
        return f @ rows


def scaling_by_token(text: str, x: Float[Tensor, "tokens d"]) -> Scaling:
    """What `BY_TOKEN` says of these activations."""
    norm = x.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    if text.startswith("1/"):
        return Scaling(1 / norm, 1 / norm)
    if text.startswith("sqrt"):
        return Scaling(x.shape[-1] ** 0.5 / norm, x.shape[-1] ** 0.5 / norm)
    spread = x.std(-1, keepdim=True).clamp_min(1e-8)
    return Scaling(1 / spread, 1 / spread, x.mean(-1, keepdim=True))
