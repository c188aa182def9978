"""Dictionaries to compare with: what do trained features add over what was there before?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.sites import Site
from saes.dictionary import EVERY, EncodedChange, SparseDictionary
from saes.dictionary_spec import DictionarySpec, check_shapes
from saes.evaluation.low_rank import fits_on, low_rank_of
from saes.evaluation.metrics import Quality, evaluate
from saes.features import Features
from saes.suite import ReadDictionary, Suite

UNTRAINED, PCA, LINEAR = "untrained", "PCA", "linear"


@dataclass(frozen=True, kw_only=True)
class QualityWithBaselines:
    """The quality of a dictionary and of its controls, `untrained` and `PCA` or `linear`."""

    quality: Quality
    controls: dict[str, Quality]


def evaluate_with_baselines(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    blocks: Int[Tensor, "blocks pos"],
    *,
    fitted_on: Int[Tensor, "other pos"],
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[QualityWithBaselines]:
    """The quality of each dictionary on `blocks`, beside two controls that are as sparse.

    One is an untrained dictionary of the target (see `untrained`), one the best linear map of as
    low a rank (see `low_rank`), for an SAE that is PCA. Their L0 is the dictionary's on
    `fitted_on`, rounded.

    Raises `ValueError` when `fitted_on` shares a block with `blocks`: a control fitted on the
    text it is judged on looks better than it is.
    """
    if {tuple(b) for b in blocks.tolist()} & {tuple(b) for b in fitted_on.tolist()}:
        raise ValueError(
            "the controls are to be fitted on other text than is judged on, "
            "but a block is in both: give more text"
        )
    report(0, len(blocks))
    fits = fits_on(model, dictionaries, fitted_on)
    both = zip(dictionaries, fits, strict=True)
    randoms = [_random(_frame(d, fit.l0), seed + i) for i, (d, fit) in enumerate(both)]
    linears = [low_rank_of(fit) for fit in fits]
    quality = evaluate(model, [*dictionaries, *randoms, *linears], blocks, report=report)
    n = len(dictionaries)
    return [
        QualityWithBaselines(
            quality=own,
            controls={UNTRAINED: random, PCA if d.source == d.target else LINEAR: linear},
        )
        for d, own, random, linear in zip(
            dictionaries, quality[:n], quality[n : 2 * n], quality[2 * n :], strict=True
        )
    ]


class Coordinates(SparseDictionary):
    """Each coordinate of a tensor as one feature, of either sign; the error is zero.

        f = x        write(f) = f

    Its products are the identity, not matrix products: inside an MLP the matrices would cost more
    than the model.
    """

    def __init__(self, site: Site, identity: Float[Tensor, "d d"]) -> None:
        d = len(identity)
        spec = DictionarySpec(source=site, target=site, architecture="topk", k=d, signed=True)
        zero = identity.new_zeros(d)
        weights = {"W_enc": identity, "W_dec": identity, "b_enc": zero, "b_dec": zero}
        super().__init__(spec, weights, check_shapes)

    def pre_activations(
        self, x: Float[Tensor, "*batch d_source"], features: slice = EVERY
    ) -> Float[Tensor, "*batch features"]:
        return x[..., features]

    def encode(self, x: Float[Tensor, "*batch d_source"]) -> Features:
        return Features.of_coordinates(x)

    def responses(
        self, x: Float[Tensor, "*batch d_source"], index: Int[Tensor, "*batch slots"]
    ) -> Float[Tensor, "*batch slots"]:
        return _picked(x, index)

    def encode_move(
        self, x: Float[Tensor, "*batch d_source"], to: Float[Tensor, "*batch d_source"]
    ) -> EncodedChange:
        return EncodedChange(self.encode(x), self.encode(to), (to - x).abs().amax(-1))

    def read_by(self, weights: Features) -> Float[Tensor, "*batch d_source"]:
        return weights.dense()

    def write(self, f: Features) -> Float[Tensor, "*batch d_target"]:
        return f.dense()

    def along(
        self, g: Float[Tensor, "*batch d_target"], index: Int[Tensor, "*batch slots"]
    ) -> Float[Tensor, "*batch slots"]:
        return _picked(g, index)


def _picked(
    x: Float[Tensor, "*batch d"], index: Int[Tensor, "*batch slots"]
) -> Float[Tensor, "*batch slots"]:
    """Some coordinates of each token; all of them as they are."""
    return x if index.shape == x.shape and index.stride(-2) == 0 else x.gather(-1, index)


def neurons(suite: Suite) -> Suite:
    """The coordinates of each tensor that is written as features."""
    return _coordinates(suite, _widths(suite))


def neurons_inside_mlps(model: TransformerBridge, suite: Suite) -> Suite:
    """`neurons`, but of `mlp_hidden` where the suite writes `mlp_out`."""
    outside = {s: width for s, width in _widths(suite).items() if s.kind != "mlp_out"}
    return _coordinates(suite, _inside_mlps(model, suite) | outside)


def features_and_neurons_inside_mlps(model: TransformerBridge, suite: Suite) -> Suite:
    """The suite's own dictionaries, but the neurons of `mlp_hidden` where it writes `mlp_out`."""
    inside = _coordinates(suite, _inside_mlps(model, suite))
    of_mlps = [n for n in suite if any(s.kind == "mlp_out" for s in suite.writes_of(n))]
    return suite.exchanging(of_mlps, inside)


def _widths(suite: Suite) -> dict[Site, int]:
    """The width of each tensor that is written."""
    return {
        site: width // len(sites)
        for width, sites in ((_width(suite, name), suite.writes_of(name)) for name in suite)
        for site in sites
    }


def _width(suite: Suite, name: str) -> int:
    return suite[name].W_dec.shape[1]


def _inside_mlps(model: TransformerBridge, suite: Suite) -> dict[Site, int]:
    width = model.cfg.d_mlp
    assert width is not None, "a Qwen's configuration says how wide its MLPs are"
    layers = [site.layer for site in suite.writes if site.kind == "mlp_out"]
    return {Site("mlp_hidden", layer): width for layer in layers}


def _coordinates(suite: Suite, widths: Mapping[Site, int]) -> Suite:
    """Coordinates of each site, in the suite's precision; sites of one width share a matrix."""
    like = next(iter(suite.values())).W_dec
    identities = {width: torch.eye(width).to(like) for width in set(widths.values())}
    return Suite({site: Coordinates(site, identities[w]) for site, w in widths.items()}, {})


def untrained(suite: Suite, *, seed: int = 0) -> Suite:
    """Dictionaries of the same shape with random weights, biased to the same mean.

    TopK with random unit rows, encoder and decoder transposes of each other, reading the target.
    """
    seeds = {name: seed + i for i, name in enumerate(suite)}
    return suite.derived(
        # The weights that it is as large as are let go before it is made.
        lambda name, read: _random(_frame(read(name)), seeds[name]),
        reads={name: suite.writes_of(name) for name in suite},
    )


def dealt_anew(suite: Suite, *, seed: int = 0) -> Suite:
    """The same features, with what each writes dealt anew among those of its dictionary.

    As sparse as the suite, and it reads the same; only which feature writes what is lost.
    """

    def deal(name: str, read: ReadDictionary) -> SparseDictionary:
        dictionary = read(name)
        generator = torch.Generator().manual_seed(seeds[name])
        order = torch.randperm(dictionary.n_features, generator=generator)
        weights = {key: value for key, value in dictionary.named_buffers() if value is not None}
        dealt = weights["W_dec"][order.to(weights["W_dec"].device)]
        return SparseDictionary(dictionary.spec, weights | {"W_dec": dealt}, check_shapes)

    seeds = {name: seed + i for i, name in enumerate(suite)}
    return suite.derived(deal, reads={name: suite.reads_of(name) for name in suite})


@dataclass(frozen=True)
class DictionaryFrame:
    """What an untrained dictionary has of another: all but the weights of its features."""

    spec: DictionarySpec
    k: int
    shape: torch.Size
    "features, width"
    b_dec: Float[Tensor, " d"]


def _frame(dictionary: SparseDictionary, k: int | None = None) -> DictionaryFrame:
    if k is None:
        k = dictionary.spec.k or min(32, dictionary.n_features)
    return DictionaryFrame(dictionary.spec, k, dictionary.W_dec.shape, dictionary.b_dec.clone())


def _random(frame: DictionaryFrame, seed: int) -> SparseDictionary:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(frame.shape, generator=generator).to(frame.b_dec)
    rows /= rows.norm(dim=-1, keepdim=True)
    weights = {"W_enc": rows, "W_dec": rows, "b_enc": -(rows @ frame.b_dec), "b_dec": frame.b_dec}
    spec = frame.spec
    return SparseDictionary(
        DictionarySpec(
            source=spec.target,
            target=spec.target,
            k=frame.k,
            also_reads=spec.also_writes,
            also_writes=spec.also_writes,
            called=spec.called,
        ),
        weights,
        check_shapes,
    )
