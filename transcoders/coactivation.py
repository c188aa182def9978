"""What a feature is given to read where it is on in a text: the other factor of virtual weights.

A virtual weight (`transcoders.weights`) says what source and target would do to each other if they
were on together; many never are. Over the tokens of a text where the target is on, the mean of what
the prompt multiplies the weight by,

    direct      mean of a_s r_t
    head h      mean over them of the sum over tokens p of a_s[p] pattern_h[t, p] r_l[p] r_t
    token       mean of r_t where the token is that one, 0 elsewhere

makes of it the mean edge: weight times factor is what a source adds to the target's pre-activation
on average, where the target is on.

Source: Dunefsky et al. 2024, arXiv:2406.11944 (weights corrected by co-activation). Differs: means
of the whole factor, patterns and norms too, over the target's own tokens.

Axes: `tokens` those up to the last one of each block at which the target is on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from saes.features import Features, cat
from saes.suite import Suite
from transcoders.frozen.model import FrozenModel, freeze
from transcoders.replacement import PATTERNS_KEPT
from transcoders.weights import READERS, Head


@dataclass(frozen=True)
class CoActivation:
    """What stood to be read in a text where one feature, the target, was on."""

    target: Node
    tokens: int
    "of the text"
    on: int
    "at which the target was on"
    _features: dict[str, Features]
    "of every dictionary, `[tokens, slots]`"
    _direct: Float[Tensor, " tokens"]
    "what a unit at each token is multiplied by, summed over where the target is on"
    _heads: dict[Head, Float[Tensor, " tokens"]]
    _is_on: Bool[Tensor, " tokens"]
    _ids: Int[Tensor, " tokens"]

    def factor(self, name: str, head: Head | None) -> Float[Tensor, " features"]:
        """What the weight from each feature of a dictionary is multiplied by, on average."""
        by_token = self._direct if head is None else self._heads[head]
        return self._mean(self._features[name], by_token)

    def together(self, name: str) -> Float[Tensor, " features"]:
        """Of the tokens where the target is on, the share at which each feature is on too."""
        f = self._features[name]
        return self._mean(f.on(), self._is_on.to(f.value))

    def tokens_factor(self, vocabulary: int) -> Float[Tensor, " vocabulary"]:
        """The same of embeddings."""
        found = self._direct.new_zeros(vocabulary)
        return found.index_add_(0, self._ids, self._direct) / self.on

    def _mean(self, f: Features, by_token: Float[Tensor, " tokens"]) -> Float[Tensor, " features"]:
        found = by_token.new_zeros(f.width)
        values = (f.value * by_token[:, None]).flatten().to(found)
        return found.index_add_(0, f.index.flatten(), values) / self.on


@torch.no_grad()
def coactivation(
    model: TransformerBridge,
    suite: Suite,
    target: Node,
    blocks: Sequence[Int[Tensor, " pos"]],
    heads: Sequence[Head] = (),
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> CoActivation:
    """Run a text, and keep what a feature had to read at the tokens where it is on.

    Raises `ValueError` where the feature is never on, or reads something else than the stream.
    """
    fitted = suite.fitting(model)
    read_at = _read_at(fitted, target.site)
    parts = []
    for number, tokens in enumerate(blocks):
        part = _of_block(model, fitted, target, read_at, tokens.to(device_of(model)), heads)
        if part is not None:
            parts.append(part)
        report(number + 1, len(blocks))
    seen = sum(len(tokens) for tokens in blocks)
    if not parts:
        raise ValueError(
            f"{target.site}/{target.feature} is not on at any of {seen:,} tokens of the text, so "
            "nothing is on together with it: give more text, or another"
        )
    first = parts[0]
    return CoActivation(
        target=target,
        tokens=seen,
        on=sum(int(part.is_on.sum()) for part in parts),
        _features={n: cat([part.features[n] for part in parts]) for n in first.features},
        _direct=torch.cat([part.direct for part in parts]),
        _heads={head: torch.cat([part.heads[head] for part in parts]) for head in heads},
        _is_on=torch.cat([part.is_on for part in parts]),
        _ids=torch.cat([part.ids for part in parts]),
    )


@dataclass(frozen=True)
class _TracedBlock:
    """One block, up to the last token at which the target is on."""

    features: dict[str, Features]
    direct: Tensor
    heads: dict[Head, Tensor]
    is_on: Tensor
    ids: Tensor


def _of_block(
    model: TransformerBridge,
    suite: Suite,
    target: Node,
    read_at: Site,
    tokens: Int[Tensor, " pos"],
    heads: Sequence[Head],
) -> _TracedBlock | None:
    with capture(model, {*suite.reads, read_at}) as seen:
        frozen, _ = freeze(model, tokens, {}, patterns_kept=PATTERNS_KEPT)
    values = {site: value[0] for site, value in seen.items()}
    index = int(target.feature)
    found = suite[target.site].encode(values[read_at])
    is_on = ((found.index == index) & (found.value != 0)).any(-1)
    if not is_on.any():
        return None
    upto = int(is_on.nonzero().max()) + 1
    features = {name: suite[name].encode(suite.read(name, values)[:upto]) for name in suite}
    at, per_rms = is_on.nonzero().squeeze(-1), _per_rms(frozen, read_at)
    direct = values[read_at].new_zeros(upto)
    direct[at] = per_rms[at]
    return _TracedBlock(
        features=features,
        direct=direct,
        heads=_by_head(frozen, heads, at, per_rms[at], upto),
        is_on=is_on[:upto],
        ids=tokens[:upto],
    )


def _by_head(
    frozen: FrozenModel,
    heads: Sequence[Head],
    at: Int[Tensor, " on"],
    per_rms: Float[Tensor, " on"],
    upto: int,
) -> dict[Head, Tensor]:
    """What a unit at each token is multiplied by through each head, summed over targets."""
    found = {}
    for layer in sorted({head.layer for head in heads}):
        mixer = frozen.layers[layer].mixer
        taken = mixer.mixing.rows(at, upto).flatten(0, 1)  # heads, on, tokens
        through = (taken * per_rms[:, None]).sum(1) * mixer.per_rms[:upto]
        found |= {head: through[head.head] for head in heads if head.layer == layer}
    return found


def _per_rms(frozen: FrozenModel, read_at: Site) -> Float[Tensor, " pos"]:
    """1 / rms where a site is read: 1 where there is no norm before."""
    norm = frozen.layers[read_at.layer].norm
    return norm.per_rms if read_at.kind == "mlp_in" else torch.ones_like(norm.per_rms)


def _read_at(suite: Suite, name: str) -> Site:
    sites = suite.reads_of(name)
    if len(sites) != 1 or sites[0].kind not in READERS:
        raise ValueError(
            f"{name} reads {', '.join(map(str, sites))}: what is on together is of features that "
            f"read one of {', '.join(READERS)}"
        )
    return sites[0]
