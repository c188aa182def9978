"""The sparse dictionary: features read at some sites, written at others.

    pre = x @ W_enc.T + b_enc
    f   = nonlinearity(pre)                     features, non-negative unless the spec is `signed`
    y   = f @ W_dec + b_dec (+ x @ W_skip.T)    on raw activations

A sparse autoencoder (SAE) reads and writes one site; an MLP transcoder reads `mlp_in.L` and
writes `mlp_out.L`; a cross-layer transcoder writes the `mlp_out` of several layers; a crosscoder
reads and writes several sites. Nothing else tells them apart: code asks for `reads` and `writes`.
Where there are several sites their tensors stand side by side in x and y. Row i of both weight
matrices is feature i.

Axes: `features` a dictionary's latents, `d_source` and `d_target` the widths of what it reads and
writes, `slots` as in `saes.features`.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooked_qwen.placement import device_of
from hooked_qwen.precision import HALF, our_precision
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import aligned
from saes.dictionary_spec import Check, DictionarySpec, check_weights
from saes.features import Features, cat, largest, nonzero, row_products, weighted_rows
from saes.nonlinearities import above_threshold as above

ENCODED_AT_ONCE = 2**23
"Pre-activations that are in memory together."
FEATURES_AT_ONCE = 2**14
"Features of one product: a wider one takes so few tokens that reading the encoder is its time."
EVERY = slice(None)
"All features."


@dataclass(frozen=True)
class EncodedChange:
    """What a move of what a dictionary reads does to its features."""

    before: Features
    after: Features
    largest: Float[Tensor, " *batch"]
    "the largest change of any pre-activation, in size"


class SparseDictionary(nn.Module):
    """A dictionary with everything folded into its weights: it takes and gives raw activations."""

    W_enc: Float[Tensor, "features d_source"]
    b_enc: Float[Tensor, " features"]
    W_dec: Float[Tensor, "features d_target"]
    b_dec: Float[Tensor, " d_target"]
    threshold: Float[Tensor, " features"] | None
    W_skip: Float[Tensor, "d_target d_source"] | None

    def __init__(
        self,
        spec: DictionarySpec,
        weights: dict[str, Tensor],
        check: Check = check_weights,
    ) -> None:
        """Of weights that are checked by `check_weights`, or by another `check`."""
        super().__init__()
        self.spec = replace(spec, skip="W_skip" in weights)
        check(spec, weights)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip"):
            # A row of a stacked tensor, say, would give other roundings than the same row alone.
            self.register_buffer(name, aligned(weights[name]) if name in weights else None)

    def __repr__(self) -> str:
        spec, dtype = self.spec, str(self.W_enc.dtype).removeprefix("torch.")
        k = "" if spec.k is None else f", k = {spec.k}"
        skip = ", skip" if spec.skip else ""
        sites = f"{spec.source} -> {spec.target}"
        where = f"{dtype} on {self.W_enc.device}"
        return (
            f"SparseDictionary({spec.architecture}{k}{skip}, {self.n_features} features, "
            f"{sites}, {where})"
        )

    @property
    def source(self) -> Site:
        return self.spec.source

    @property
    def target(self) -> Site:
        return self.spec.target

    @property
    def reads(self) -> tuple[Site, ...]:
        return self.spec.reads

    @property
    def writes(self) -> tuple[Site, ...]:
        return self.spec.writes

    @property
    def name(self) -> str:
        """What its features are called in graphs."""
        return self.spec.node_name

    @property
    def n_features(self) -> int:
        return len(self.W_enc)

    def moved(self, dtype: torch.dtype, device: torch.device) -> "SparseDictionary":
        """The same in a precision and on a device; itself where it is so already."""
        if all((value.dtype, value.device) == (dtype, device) for value in self.buffers()):
            return self
        found = copy(self)
        found._buffers = self._buffers | {
            # Between devices in whichever precision is smaller, one tensor at a time.
            name: value.to(dtype).to(device)
            if dtype.itemsize < value.dtype.itemsize
            else value.to(device).to(dtype)
            for name, value in self.named_buffers(remove_duplicate=False)
        }
        return found

    def widened(self) -> "SparseDictionary":
        """In float32, where any of its tensors is in half precision; else itself."""
        if not any(value.dtype in HALF for value in self.buffers()):
            return self
        return self.moved(torch.float32, self.W_dec.device)

    def read(self, values: Mapping[Site, Tensor]) -> Float[Tensor, "*batch d_source"]:
        """What it reads of the model's tensors."""
        return side_by_side(values, self.reads)

    def by_site(self, y: Float[Tensor, "*batch d_target"]) -> dict[Site, Tensor]:
        """What it writes, as what goes to each of its sites."""
        return by_site(self.writes, y)

    def pre_activations(
        self, x: Float[Tensor, "*batch d_source"], features: slice = EVERY
    ) -> Float[Tensor, "*batch features"]:
        """What each feature, or each of some, reads in the source activations `x`."""
        return (x @ self.W_enc[features].T).add_(self.b_enc[features])

    def encode(self, x: Float[Tensor, "*batch d_source"]) -> Features:
        """The features that are on, of the source activations `x`, some tokens at a time.

        Gradients reach `x` through the features that are on.
        """
        flat = x.reshape(-1, x.shape[-1])
        at_once = tokens_at_once(self.n_features)
        # One token at a time, as in generation, small things cost as much as the product.
        parts = flat.detach().split(at_once) if len(flat) > at_once else (flat.detach(),)
        found = cat([self._encoded(part) for part in parts])
        if x.requires_grad:
            value = _Response.apply(flat, found.index, found.value, self.W_enc)
            found = replace(found, value=value)
        return found.view(x.shape[:-1])

    @torch.no_grad()
    def encode_move(
        self, x: Float[Tensor, "*batch d_source"], to: Float[Tensor, "*batch d_source"]
    ) -> "EncodedChange":
        """The features at both ends of a move of the source activations, from `x` to `to`."""
        flat = x.reshape(-1, x.shape[-1]), to.reshape(-1, x.shape[-1])
        # Half as many tokens as `encode` takes: the pre-activations of both ends are there.
        at_once = max(1, tokens_at_once(self.n_features) // 2)
        found = [self._moved(*ends) for ends in zip(*(x.split(at_once) for x in flat), strict=True)]
        before, after, largest = zip(*found, strict=True)
        shape = x.shape[:-1]
        return EncodedChange(
            cat(before).view(shape), cat(after).view(shape), torch.cat(largest).view(shape)
        )

    def _encoded(self, x: Float[Tensor, "tokens d_source"]) -> Features:
        found = [self._chosen(self.pre_activations(x, part), part) for part in self._parts()]
        return self._of_all(found)

    def _moved(
        self, x: Float[Tensor, "tokens d_source"], to: Float[Tensor, "tokens d_source"]
    ) -> tuple[Features, Features, Float[Tensor, " tokens"]]:
        before, after, largest_changes = [], [], []
        for part in self._parts():
            pre, pre_to = self.pre_activations(x, part), self.pre_activations(to, part)
            before.append(self._chosen(pre, part))
            after.append(self._chosen(pre_to, part))
            low, high = torch.sub(pre_to, pre, out=pre_to).aminmax(dim=-1)
            largest_changes.append(torch.maximum(high, -low))
        most = torch.stack(largest_changes).amax(0)
        return self._of_all(before), self._of_all(after), most

    def _parts(self) -> list[slice]:
        """The features, as many at a time as one product takes."""
        if self.n_features <= FEATURES_AT_ONCE:
            return [EVERY]
        starts = range(0, self.n_features, FEATURES_AT_ONCE)
        return [slice(start, start + FEATURES_AT_ONCE) for start in starts]

    def _chosen(self, pre: Float[Tensor, "tokens features"], part: slice = EVERY) -> Features:
        """The features of a part that are on, or may be, where these are its pre-activations."""
        if self.spec.architecture == "topk":
            assert self.spec.k is not None
            # The largest of all features are among the largest of each part.
            k = min(self.spec.k, pre.shape[-1])
            found = largest(pre, k, signed=self.spec.signed)
        elif self.threshold is None:
            found = nonzero(pre.relu())
        else:
            found = nonzero(above(pre, self.threshold[part]))
        return found if part == EVERY else replace(found, index=found.index + part.start)

    def _of_all(self, parts: Sequence[Features]) -> Features:
        """What is on of all features, where this is on, or may be, of each part of them."""
        if len(parts) == 1:
            return parts[0]
        index, value = (torch.cat([getattr(f, x) for f in parts], -1) for x in ("index", "value"))
        if self.spec.architecture != "topk":
            found = Features(index, value, self.n_features)
            return found.only(value != 0)
        assert self.spec.k is not None
        value, slot = value.topk(self.spec.k, dim=-1, sorted=False)
        return Features(index.gather(-1, slot), value, self.n_features)

    def responses(
        self, x: Float[Tensor, "*batch d_source"], index: Int[Tensor, "*batch slots"]
    ) -> Float[Tensor, "*batch slots"]:
        """The pre-activations of some features of each token, less their bias."""
        return row_products(x, self.W_enc, index)

    def read_by(self, weights: Features) -> Float[Tensor, "*batch d_source"]:
        """The sum over features of weight times what they read: the adjoint of `responses`."""
        return weighted_rows(weights, self.W_enc)

    def write(self, f: Features) -> Float[Tensor, "*batch d_target"]:
        """What the features, or a change of them, add to the target."""
        return weighted_rows(f, self.W_dec)

    def along(
        self, g: Float[Tensor, "*batch d_target"], index: Int[Tensor, "*batch slots"]
    ) -> Float[Tensor, "*batch slots"]:
        """A gradient at the target along some features' directions: the adjoint of `write`."""
        return row_products(g, self.W_dec, index)

    def decode(self, f: Features) -> Float[Tensor, "*batch d_target"]:
        """What the features write at the target, with the bias, without any skip connection."""
        return self.write(f) + self.b_dec

    def skip(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch d_target"] | float:
        """What the linear skip connection adds, 0 where there is none."""
        return 0.0 if self.W_skip is None else x @ self.W_skip.T

    def forward(self, x: Float[Tensor, "*batch d_source"]) -> Float[Tensor, "*batch d_target"]:
        """The reconstruction of the target from the source activations `x`."""
        return self.decode(self.encode(x)) + self.skip(x)


def side_by_side(
    values: Mapping[Site, Tensor], sites: Sequence[Site]
) -> Float[Tensor, "*batch width"]:
    """The tensors of some sites along their last axis: what a dictionary of these sites reads."""
    found = [values[site] for site in sites]
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def by_site(sites: Sequence[Site], x: Float[Tensor, "*batch width"]) -> dict[Site, Tensor]:
    """What stands side by side, apart: the inverse of `side_by_side`."""
    if len(sites) == 1:
        return {sites[0]: x}
    return dict(zip(sites, x.chunk(len(sites), -1), strict=True))


class _Response(torch.autograd.Function):
    """Features that are on respond one to one to what they read; the others do not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, value: Tensor, W_enc: Tensor) -> Tensor:
        ctx.save_for_backward(index, value, W_enc)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        index, value, W_enc = ctx.saved_tensors
        weights = Features(index, grads[0] * (value != 0), len(W_enc))
        return weighted_rows(weights, W_enc), None, None, None


def tokens_at_once(features: int) -> int:
    """How many tokens' pre-activations a dictionary of so many features has in memory together."""
    return max(1, ENCODED_AT_ONCE // min(features, FEATURES_AT_ONCE))


def most_pre_activations(tokens: int, features: int) -> int:
    """How many numbers the largest product is that encodes so many tokens."""
    return min(tokens, tokens_at_once(features)) * min(features, FEATURES_AT_ONCE)


def fitted(dictionary: SparseDictionary, model: nn.Module) -> SparseDictionary:
    """The dictionary in the precision and on the device that a model's activations have."""
    return dictionary.moved(our_precision(model), device_of(model))
