"""The best linear map of low rank from a dictionary's source to its target: for an SAE, PCA."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from saes.dictionary import SparseDictionary, fitted
from saes.dictionary_spec import DictionarySpec, check_shapes
from saes.evaluation.metrics import BLOCKS_PER_PASS
from saes.evaluation.splice import is_outlier_pair, pairs_of, sites_of, unpadded
from saes.features import Features

SMALLEST_SHARE = 1e-10
"Directions of the source with less than this share of the largest variance are not inverted."


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
    return [low_rank_of(fit) for fit in fits_on(model, dictionaries, blocks)]


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
class Fit:
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
def fits_on(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    blocks: Int[Tensor, "blocks pos"],
) -> list[Fit]:
    """Each dictionary on some text, what its best linear map follows from.

    Raises `ValueError` for fewer tokens than its source is wide.
    """
    sums = [_FitSums(fitted(d, model)) for d in dictionaries]
    sites = sites_of(pairs_of(dictionaries))
    for tokens in blocks.split(BLOCKS_PER_PASS) if sites and len(blocks) else ():
        with capture(model, sites) as values:
            run_through(model, unpadded(tokens), max(site.layer for site in sites))
        for one in sums:
            x, y = values[one.dictionary.source], values[one.dictionary.target]
            one.add(x, y, ~is_outlier_pair(x, y))
    counts = torch.stack([one.counts for one in sums]).tolist() if sums else []
    fits = [Fit(one.dictionary, one, *map(int, n)) for one, n in zip(sums, counts, strict=True)]
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


def low_rank_of(fit: Fit) -> SparseDictionary:
    """The best linear map on the text that `fit` is of."""
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
