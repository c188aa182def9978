"""Dictionaries to compare with: what do trained features add over what was there before?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from saes.dictionary import EVERY, EncodedChange, SparseDictionary, fitted
from saes.dictionary_spec import DictionarySpec, check_shapes
from saes.evaluation.metrics import BLOCKS_PER_PASS, Quality, evaluate
from saes.evaluation.splice import is_outlier_pair, pairs_of, sites_of, unpadded
from saes.features import Features
from saes.suite import Suite

UNTRAINED, PCA, LINEAR = "untrained", "PCA", "linear"
SMALLEST_SHARE = 1e-10
"Directions of the source with less than this share of the largest variance are not inverted."


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
    fits = _fits(model, dictionaries, fitted_on)
    both = zip(dictionaries, fits, strict=True)
    randoms = [_random(d, fit.l0, seed + i) for i, (d, fit) in enumerate(both)]
    linears = [_low_rank(fit) for fit in fits]
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
        lambda name, d: _random(d, d.spec.k or min(32, d.n_features), seeds[name]),
        reads={name: suite.writes_of(name) for name in suite},
    )


def dealt_anew(suite: Suite, *, seed: int = 0) -> Suite:
    """The same features, with what each writes dealt anew among those of its dictionary.

    As sparse as the suite, and it reads the same; only which feature writes what is lost.
    """

    def deal(name: str, dictionary: SparseDictionary) -> SparseDictionary:
        generator = torch.Generator().manual_seed(seeds[name])
        order = torch.randperm(dictionary.n_features, generator=generator)
        weights = {key: value for key, value in dictionary.named_buffers() if value is not None}
        dealt = weights["W_dec"][order.to(weights["W_dec"].device)]
        return SparseDictionary(dictionary.spec, weights | {"W_dec": dealt}, check_shapes)

    seeds = {name: seed + i for i, name in enumerate(suite)}
    return suite.derived(deal, reads={name: suite.reads_of(name) for name in suite})


@torch.no_grad()
def low_rank(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    blocks: Int[Tensor, "blocks pos"],
) -> list[SparseDictionary]:
    """For each dictionary the linear map from its source to its target that errs least on `blocks`.

        y_hat = mean(y) + U U^T C_yx C_xx^+ (x - mean(x))

    among those of rank r, the dictionary's L0 on `blocks`, rounded: the columns of U are the r
    leading eigenvectors of C_yx C_xx^+ C_xy. For an SAE this is PCA. Each component is a pair of
    features, one for each sign, of which one is on: L0 is r. Norm outliers are left out.

    On few tokens the map fits their noise and the control looks worse than it is; ten times the
    source's width is enough. Raises `ValueError` for fewer tokens than the source is wide.

    Source: Izenman 1975, Reduced-rank regression for the multivariate linear model.
    """
    return [_low_rank(fit) for fit in _fits(model, dictionaries, blocks)]


class _FitSums:
    """Sums over tokens from which a dictionary's best linear map follows."""

    def __init__(self, dictionary: SparseDictionary) -> None:
        self.dictionary = dictionary
        W_enc, W_dec = dictionary.W_enc, dictionary.W_dec
        self.x, self.y = (torch.zeros_like(W[0], dtype=torch.double) for W in (W_enc, W_dec))
        self.xx, self.yx = torch.outer(self.x, self.x), torch.outer(self.y, self.x)
        self.counts = self.x.new_zeros(2)  # tokens, and features that are on in all of them

    def add(
        self,
        x: Float[Tensor, "*tokens d_source"],
        y: Float[Tensor, "*tokens d_target"],
        inlier: Bool[Tensor, "*tokens"],
    ) -> None:
        """Take in the tokens that are no outlier; the others count as zeros.

        Picking them would wait for the device, to know how many they are.
        """
        keep = inlier.unsqueeze(-1)
        on = (self.dictionary.encode(x).value != 0) & keep
        self.counts += torch.stack([inlier.sum(), on.sum()])
        x, y = (rearrange(v.double() * keep, "... d -> (...) d") for v in (x, y))
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.yx += y.T @ x


@dataclass(frozen=True)
class _Fit:
    """A dictionary on some text: sums over its tokens, and how many features were on."""

    dictionary: SparseDictionary
    sums: _FitSums
    tokens: int
    active: int

    @property
    def l0(self) -> int:
        """Rounded, and at least 1."""
        return max(1, round(self.active / self.tokens))

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Of the source and of the target."""
        return self.sums.x / self.tokens, self.sums.y / self.tokens

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Of the source with itself, and of the target with the source, times n."""
        s, (mean, _) = self.sums, self.means
        return s.xx - torch.outer(s.x, mean), s.yx - torch.outer(s.y, mean)


@torch.no_grad()
def _fits(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    blocks: Int[Tensor, "blocks pos"],
) -> list[_Fit]:
    sums = [_FitSums(fitted(d, model)) for d in dictionaries]
    sites = sites_of(pairs_of(dictionaries))
    for tokens in blocks.split(BLOCKS_PER_PASS) if sites and len(blocks) else ():
        with capture(model, sites) as values:
            run_through(model, unpadded(tokens), max(site.layer for site in sites))
        for one in sums:
            x, y = values[one.dictionary.source], values[one.dictionary.target]
            one.add(x, y, ~is_outlier_pair(x, y))
    counts = torch.stack([one.counts for one in sums]).tolist() if sums else []
    fits = [_Fit(one.dictionary, one, *map(int, n)) for one, n in zip(sums, counts, strict=True)]
    for fit in fits:
        if fit.tokens <= len(fit.sums.x):
            raise ValueError(
                f"the linear control of {fit.dictionary.source} needs over {len(fit.sums.x)} "
                f"tokens beyond the text judged on; {fit.tokens} are left: give more text"
            )
    return fits


class _Narrow(SparseDictionary):
    """A dictionary of few features, half of them on: all of them are told, on or off."""

    def encode(self, x: Float[Tensor, "*batch d_source"]) -> Features:
        # Picking those that are on would wait for the device, to know how many they are.
        return Features.of_coordinates(self.pre_activations(x).relu())


def _low_rank(fit: _Fit) -> SparseDictionary:
    (xx, yx), (x, y) = fit.covariances(), fit.means
    regression = yx @ torch.linalg.pinv(xx, rtol=SMALLEST_SHARE, hermitian=True)
    rank = min(fit.l0, len(x), len(y))
    U = torch.linalg.eigh(regression @ yx.T).eigenvectors[:, -rank:]
    V = U.T @ regression
    offset = V @ x
    dtype, spec = fit.dictionary.W_dec.dtype, fit.dictionary.spec
    weights = {
        "W_enc": torch.cat([V, -V]),
        "b_enc": torch.cat([-offset, offset]),
        "W_dec": torch.cat([U.T, -U.T]),
        "b_dec": y,
    }
    return _Narrow(
        DictionarySpec(source=spec.source, target=spec.target, architecture="relu"),
        {name: value.to(dtype) for name, value in weights.items()},
        check_shapes,
    )


def _random(dictionary: SparseDictionary, k: int, seed: int) -> SparseDictionary:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(dictionary.W_dec.shape, generator=generator).to(dictionary.W_dec)
    rows /= rows.norm(dim=-1, keepdim=True)
    weights = {
        "W_enc": rows,
        "W_dec": rows,
        "b_enc": -rows @ dictionary.b_dec,
        "b_dec": dictionary.b_dec.clone(),
    }
    spec = dictionary.spec
    return SparseDictionary(
        DictionarySpec(
            source=spec.target,
            target=spec.target,
            k=k,
            also_reads=spec.also_writes,
            also_writes=spec.also_writes,
            called=spec.called,
        ),
        weights,
        check_shapes,
    )
