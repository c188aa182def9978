"""A model with its MLPs replaced by transcoders and errors, made linear at one prompt.

    model = replace_mlps(model, suite, tokens)

Every target, a feature's pre-activation or a logit, is then a sum over what writes to the residual
stream before it (`transcoders.sources`), by the frozen map of `transcoders.frozen.model`:

    weight(s -> t) = a_s * (w_dec_s . J . w_enc_t)              in units of t's pre-activation
    pre_activation(t) = bias(t) + sum over s of weight(s -> t)   exactly

with tokens and errors among the sources s. `bias` is the constant part: the target's own bias, and
what decoder biases and the biases of attention write. With errors the replacement model is the
model: its logits are unchanged.

A dictionary reads the `mlp_in` of one layer and writes `mlp_out` of that one or of later ones
(cross-layer). A layer that none writes has its whole MLP as its error.

Weights are found by sweeps (`inputs`): targets of one layer go together, a sweep starts there and
stops at their token, and at each layer one product per token with the rows of what was written
gives the weights of all of its sources. How targets are grouped depends on nothing but the prompt,
so results do not depend on how many are asked for at once.

Source: Dunefsky et al. 2024, arXiv:2406.11944; Ameisen et al. 2025, Circuit Tracing.

Axes: as in `transcoders.sources`; `targets` that are swept together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import intervene
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.on_demand import InTurn, OnDemand
from saes.suite import Suite
from transcoders.frozen.model import EMBED, FrozenModel, Pushed, Recorded, freeze
from transcoders.in_suite import check_skips, skips_of, transcoders_among
from transcoders.sources import BIAS, Pinned, Sources, sources_of
from transcoders.sweeps import in_sweeps
from transcoders.written import WrittenRows

SWEPT_AT_ONCE = 2**25
"Bytes of a sweep's gradient, and of its weights, at most (unless one target has more)."
ROWS_KEPT = 2**30
"Bytes of what is written that are kept between sweeps."
PATTERNS_KEPT = 2**30


@dataclass(frozen=True)
class Targets:
    """Vectors that read one site, each at its token."""

    site: Site
    "`mlp_in.L` or `resid_post.L`"
    vectors: Float[Tensor, "targets d_model"]
    position: Int[Tensor, " targets"]
    constant: Float[Tensor, " targets"]
    "what each reads whatever the stream is: a feature's `b_enc`"
    per_rms: Float[Tensor, " targets"] | None = None
    "1 / rms of a frozen norm that the vectors have in them, as those of the last norm do"


@dataclass(frozen=True)
class TargetInputs:
    """What each source adds to each of some targets."""

    weight: Float[Tensor, "sources targets"]
    "of the sources that write below the targets: a prefix of all; biases have weight 0"
    bias: Float[Tensor, " targets"]


@dataclass(frozen=True)
class Totals:
    """How targets hang on what is written, by all paths through features that stay on."""

    slope: Float[Tensor, " sources"]
    "of features: the targets' change per unit of activation; 0 of others"
    gradient: dict[Site, Float[Tensor, "pos d_model"]]
    "at `embed` and every `mlp_out.L`"


@dataclass(frozen=True)
class ReplacementModel:
    """One prompt's replacement model; see the module's docstring."""

    frozen: FrozenModel
    recorded: Recorded
    dictionaries: InTurn
    names: tuple[str, ...]
    "of the dictionaries"
    reads: tuple[int, ...]
    "the layer that each of them reads"
    sources: Sources
    written: WrittenRows

    @property
    def n_tokens(self) -> int:
        return self.frozen.n_tokens

    @cached_property
    def pushed(self) -> Pushed:
        """What all sources together write: the whole stream, recomputed by the frozen map."""
        writes = {EMBED: self.recorded.embed.unsqueeze(1), **self.frozen.constants()}
        for layer, written in enumerate(self.recorded.mlp_out):
            skip = self.frozen.layers[layer].skip
            by_skip = 0.0 if skip is None else self.recorded.mlp_in[layer] @ skip.T
            writes[Site("mlp_out", layer)] = (written - by_skip).unsqueeze(1)
        return self.frozen.push(writes)

    def read(self, site: Site) -> Float[Tensor, "pos d_model"]:
        """The whole stream by the frozen map, at `mlp_in.L` or `resid_post.L`."""
        pushed = self.pushed
        tensors = pushed.resid_post if site.kind == "resid_post" else pushed.mlp_in
        return tensors[site.layer][:, 0]

    @cached_property
    def mixed(self) -> tuple[Float[Tensor, "pos d_model"], ...]:
        """What each layer's token mixer writes, by the frozen map, without what its biases do."""
        before = [self.recorded.embed.unsqueeze(1), *self.pushed.resid_post]
        layers = zip(self.frozen.layers, before, strict=False)
        return tuple(layer.mixer.forward(x)[:, 0] for layer, x in layers)

    @cached_property
    def pre_activation(self) -> Float[Tensor, " sources"]:
        """Of every feature, by the frozen map; 0 of other sources."""
        found = torch.zeros_like(self.sources.activation)
        for number, layer in enumerate(self.reads):
            of, dictionary = self.sources.dictionary == number, self.dictionaries[number]
            read = self.read(Site("mlp_in", layer))[self.sources.position[of]]
            rows = dictionary.W_enc[self.sources.feature[of]]
            found[of] = (read * rows).sum(-1) + dictionary.b_enc[self.sources.feature[of]]
        return found

    def read_layer(self, source: Int[Tensor, " some"]) -> Int[Tensor, " some"]:
        """The layer that each of some features reads."""
        reads = torch.tensor(self.reads, device=source.device)
        return reads[self.sources.dictionary[source]]

    def features(self, source: Int[Tensor, " targets"]) -> Targets:
        """Features as targets, all of one layer."""
        layers = self.read_layer(source).unique()
        assert len(layers) == 1, "features that are swept together read one layer"
        of, which = self.sources.dictionary[source], self.sources.feature[source]
        vectors = self.recorded.embed.new_empty(len(source), self.recorded.embed.shape[1])
        constant = vectors.new_empty(len(source))
        for number in of.unique().tolist():
            here = of == number
            vectors[here] = self.dictionaries[number].W_enc[which[here]]
            constant[here] = self.dictionaries[number].b_enc[which[here]]
        site = Site("mlp_in", int(layers))
        return Targets(site, vectors, self.sources.position[source], constant)

    def last_token(
        self,
        directions: Float[Tensor, "targets d_model"],
        constant: Float[Tensor, " targets"] | None = None,
    ) -> Targets:
        """Directions in what the unembedding reads at the last token, such as its rows."""
        at = torch.full((len(directions),), self.n_tokens - 1, device=directions.device)
        vectors = directions * self.frozen.last_norm.scale[-1]
        if constant is None:
            constant = vectors.new_zeros(len(vectors))
        site = Site("resid_post", len(self.frozen.layers) - 1)
        return Targets(site, vectors, at, constant, self.frozen.last_norm.per_rms[at])

    def grouped(
        self, source: Int[Tensor, " some"], at_once: int = SWEPT_AT_ONCE
    ) -> Iterator[Int[Tensor, " targets"]]:
        """Features in groups to sweep together: the highest layer first, then by token.

        A sweep's gradient and its weights have `at_once` bytes each at most.
        """
        return in_sweeps(
            source,
            self.read_layer(source),
            self.sources.position[source],
            below=self.sources.before,
            width=self._width,
            numbers=at_once // self.recorded.embed.element_size(),
        )

    @property
    def _width(self) -> int:
        """Numbers that a sweep holds for each target and token, at its widest."""
        return max(max(layer.mixer.W_O.shape) for layer in self.frozen.layers)

    def inputs(self, targets: Targets) -> TargetInputs:
        """What every source adds to each of the targets: one sweep."""
        layer = targets.site.layer + (targets.site.kind == "resid_post")
        weight = targets.vectors.new_zeros(self.sources.before(layer), len(targets.vectors))
        bias = targets.constant.clone()
        if targets.site.kind == "mlp_in":
            bias += self._of_own_layer(targets)
        for site, g in self.frozen.pull(targets.site, targets.vectors, targets.position):
            if site == EMBED:
                upto = len(g)
                weight[:upto] = (g @ self.recorded.embed[:upto, :, None]).squeeze(-1)
            else:
                self.written.add_products(site.layer, g, weight)
        biases = (self.sources.kind[: len(weight)] == BIAS).nonzero().squeeze(-1)
        bias += weight[biases].sum(0)
        weight[biases] = 0.0
        return TargetInputs(weight, bias)

    def _of_own_layer(self, targets: Targets) -> Float[Tensor, " targets"]:
        """What the biases of the attention in the targets' own layer add to them."""
        layer = self.frozen.layers[targets.site.layer]
        read = (layer.mixer.constant() * layer.norm.scale)[targets.position]
        return (targets.vectors * read).sum(-1)

    def totals(self, targets: Targets) -> Totals:
        """How what some targets read together hangs on each source, by all paths: one pass back.

        Features respond as they do while they stay on: one to one.
        """
        slope = torch.zeros_like(self.sources.activation)
        g, gradients = torch.zeros_like(self.recorded.embed).unsqueeze(1), {}
        for number in range(len(self.frozen.layers) - 1, -1, -1):
            layer, written = self.frozen.layers[number], self.sources.layers[number]
            if targets.site == Site("resid_post", number):
                g[:, 0].index_add_(0, targets.position, targets.vectors)
            gradients[Site("mlp_out", number)] = g[:, 0].clone()
            for first, last, rows in self.written.rows(number, self.n_tokens):
                span = written.span(first, last)
                share = (rows * g[written.position[span], 0]).sum(-1) / written.value[span]
                of_feature = written.dictionary[span] >= 0
                slope.index_add_(0, written.source[span], torch.where(of_feature, share, 0))
            read = torch.zeros_like(g)
            if targets.site == Site("mlp_in", number):
                read[:, 0].index_add_(0, targets.position, targets.vectors)
            read = self._reread(number, slope, read) * layer.norm.scale[:, None]
            g = layer.skipped_adjoint(g) + read
            g = g + layer.mixer.adjoint(g)
        return Totals(slope, gradients | {EMBED: g[:, 0]})

    def _reread(self, layer: int, slope: Tensor, read: Tensor) -> Tensor:
        """Add what the features that read a layer read, by their slopes."""
        for number, read_layer in enumerate(self.reads):
            if read_layer == layer:
                of = (self.sources.dictionary == number).nonzero().squeeze(-1)
                W_enc = self.dictionaries[number].W_enc
                rows = W_enc[self.sources.feature[of]] * slope[of, None]
                read[:, 0].index_add_(0, self.sources.position[of], rows)
        return read


def replace_mlps(
    model: TransformerBridge,
    dictionaries: Mapping[str, SparseDictionary],
    tokens: Int[Tensor, " pos"],
    *,
    rows_kept: int = ROWS_KEPT,
    patterns_kept: int = PATTERNS_KEPT,
    pinned: Pinned | None = None,
) -> ReplacementModel:
    """The replacement model of a prompt, by the transcoders among `dictionaries`.

    Of what is written, and of patterns, so many bytes are kept; the rest is made again whenever it
    is used. Where nodes are `pinned` it is that of the model in which they stand so.

    Raises `ValueError` where none is a transcoder, or one has a skip connection across layers, or
    one beside an error that is pinned.
    """
    suite = dictionaries if isinstance(dictionaries, Suite) else Suite(dictionaries, {})
    names = transcoders_among(suite)
    opened = OnDemand(suite.fitting(model), names)
    writes = [suite.writes_of(name) for name in names]
    skips, forced = skips_of(opened), {}
    if pinned is not None:
        check_skips(skips, pinned)
        forced = {site: lambda _, y=y: y[None] for site, y in pinned.mlp_out.items()}
    with torch.no_grad():
        with intervene(model, forced):
            frozen, recorded = freeze(
                model, tokens.to(device_of(model)), skips, patterns_kept=patterns_kept
            )
        sources = sources_of(opened, writes, frozen, recorded, pinned)
    return ReplacementModel(
        frozen=frozen,
        recorded=recorded,
        dictionaries=opened,
        names=tuple(names),
        reads=tuple(suite.reads_of(name)[0].layer for name in names),
        sources=sources,
        written=WrittenRows(sources, opened, rows_kept),
    )
