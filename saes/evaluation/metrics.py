"""How good a dictionary is, on held-out text: sparsity, reconstruction, and what splicing it costs.

    L0                  mean number of features that are not 0 on a token
    FVU                 sum |y - y_hat|^2 / sum |y - mean(y)|^2     fraction of variance unexplained
    explained variance  1 - FVU
    cosine              mean over tokens of y . y_hat / (|y| |y_hat|)       nothing subtracted
    loss recovered      (CE_zero - CE_spliced) / (CE_zero - CE_clean)
    added CE            CE_spliced - CE_clean, and of zero and of the mean in its place
    KL                  sum over the vocabulary of p_clean (log p_clean - log p_spliced)

Both sums of the FVU run over all tokens and coordinates before they are divided, and mean(y) is
the vector mean over all tokens. Formulas in use that give other numbers: the mean over tokens (or
over coordinates) of the ratio of each, which weights short vectors (or quiet coordinates) as much
as the rest; |y|^2 below, which at a site with a large mean makes any constant look good; the mean
of each batch in place of that of the text; the variance of the error in place of its mean square,
which forgives a reconstruction that is off by a constant. A large mean flatters the cosine too:
read it beside the FVU.

Cross-entropies (CE) are of the next token in nats: the model as it is, with the site's tensor
replaced by the reconstruction, by zero, and by its mean over the same text. Mean ablation is the
harder reference. Where ablating costs next to nothing, loss recovered has no scale: its interval
then is wide, or it is null.

Norm outliers (see `hooked_qwen.stream`) keep their own activation in every replacement, and are
left out of every figure but those called `_all`, which replace and count them too.

Intervals are 95 % bootstrap percentiles over blocks of text, the mean of y held fixed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.sites import Site
from hooked_qwen.tokens import first_blocks
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary, fitted
from saes.evaluation.bootstrap import Interval, ratio, ratio_interval
from saes.evaluation.splice import (
    CleanRun,
    Sums,
    clean_run,
    in_order,
    pairs_of,
    reference_sums,
    site_means,
    spliced_sums,
)
from saes.on_demand import InTurn, fitting

DENSE = 0.1
"Features active on more than this share of tokens are counted: an average L0 hides them."
DECADES = {f"1e-{n}": 10.0**-n for n in (5, 4, 3, 2, 1)} | {"1": 1.0}
"Upper ends of the density histogram's bins, the end included; the first bin starts at 0."
BLOCKS_PER_PASS = 4
RECONSTRUCTION = {
    "l0": ("active", "tokens"),
    "fvu": ("error", "spread"),
    "fvu_all": ("error_all", "spread_all"),
    "cosine": ("cosine", "tokens"),
}
SPLICE = {
    "ce_clean": ("clean", "predicted"),
    "ce_spliced": ("spliced", "predicted"),
    "ce_spliced_all": ("spliced_all", "predicted"),
    "ce_zero": ("zero", "predicted"),
    "ce_zero_all": ("zero_all", "predicted"),
    "ce_mean": ("mean", "predicted"),
    "loss_recovered": ("zero - spliced", "zero - clean"),
    "loss_recovered_all": ("zero_all - spliced_all", "zero_all - clean"),
    "loss_recovered_mean": ("mean - spliced", "mean - clean"),
    "ce_added": ("spliced - clean", "predicted"),
    "ce_added_zero": ("zero - clean", "predicted"),
    "ce_added_mean": ("mean - clean", "predicted"),
    "kl": ("kl", "predicted"),
    "kl_zero": ("kl_zero", "predicted"),
    "kl_mean": ("kl_mean", "predicted"),
    "kl_all": ("kl_all", "predicted"),
}
"Figures that are one sum over another, and which sums."
ADDED = {"replaced": "", "zero": "_zero", "mean": "_mean"}
"What may stand in the place of a target, and how figures of it end."
COSTS = (
    "loss_recovered",
    *(f"{figure}{end}" for end in ADDED.values() for figure in ("ce_added", "kl")),
)
"Figures of a splice that have intervals."


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of one dictionary; see the module's docstring for the formulas."""

    tokens: int
    "judged on, norm outliers left out"
    outliers: int
    l0: float
    fvu: float
    fvu_all: float
    explained_variance: float
    cosine: float
    dead: float
    "share of features that never fired on these tokens"
    dense: int
    "features that fired on more than a tenth of them"
    density: dict[str, int]
    "features that fired, by decade of the share of tokens they fired on; keys are upper ends"
    ce_clean: float
    ce_spliced: float
    ce_spliced_all: float
    ce_zero: float
    ce_zero_all: float
    ce_mean: float
    loss_recovered: float | None
    loss_recovered_all: float | None
    loss_recovered_mean: float | None
    "with the mean in place of zero"
    ce_added: float
    "by the splice, to the clean cross-entropy"
    ce_added_zero: float
    ce_added_mean: float
    kl: float
    "from the clean to the spliced next-token distribution, in nats"
    kl_zero: float
    kl_mean: float
    kl_all: float
    intervals: dict[str, Interval]
    "of fvu, l0 and `COSTS`; null on a single block"


@dataclass(frozen=True, kw_only=True)
class JointQuality:
    """What it costs to splice many dictionaries at once; zero and mean ablate all their targets."""

    dictionaries: int
    ce_clean: float
    ce_spliced: float
    ce_spliced_all: float
    ce_zero: float
    ce_zero_all: float
    ce_mean: float
    loss_recovered: float | None
    loss_recovered_all: float | None
    loss_recovered_mean: float | None
    ce_added: float
    ce_added_zero: float
    ce_added_mean: float
    kl: float
    kl_zero: float
    kl_mean: float
    kl_all: float
    intervals: dict[str, Interval]
    "of `COSTS`"


def held_out_blocks(
    texts: Iterable[str], model: TransformerBridge, *, tokens: int, length: int = 128
) -> Int[Tensor, "blocks pos"]:
    """The first `tokens` tokens of `texts` in blocks; raises `ValueError` when there are none."""
    if tokens < length:
        raise ValueError(
            f"cannot judge on {tokens} tokens: at least one block of {length} is needed"
        )
    return first_blocks(texts, model.tokenizer, tokens=tokens, length=length)


@torch.no_grad()
def evaluate(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    blocks: Int[Tensor, "blocks pos"],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Quality]:
    """The quality of each dictionary on the same text, each spliced in on its own.

    `report` is called with the blocks done and the blocks there are.

    Raises `ValueError` for a target that is the same on every token: it has no variance.
    """
    report(0, len(blocks))
    dictionaries = [fitted(d, model) for d in dictionaries]
    means = site_means(model, dictionaries, blocks.split(BLOCKS_PER_PASS))
    tallies = [_Tally(d, means[d.source, d.target]) for d in dictionaries]
    done = 0
    for tokens in blocks.split(BLOCKS_PER_PASS):
        clean = clean_run(model, pairs_of(dictionaries), tokens)
        references = {key: reference_sums(model, clean, {key: means[key]}) for key in means}
        for tally in tallies:
            d = tally.dictionary
            tally.add(clean, references[d.source, d.target] | spliced_sums(model, clean, [d]))
        done += len(tokens)
        report(done, len(blocks))
    sums = [_joined(tally.parts) | {"fired": tally.fired} for tally in tallies]
    return [_quality(d, one) for d, one in zip(dictionaries, _on_the_host(sums), strict=True)]


@torch.no_grad()
def evaluate_jointly(
    model: TransformerBridge,
    dictionaries: InTurn,
    blocks: Int[Tensor, "blocks pos"],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> JointQuality:
    """What it costs to splice all dictionaries at once, each reading what those before it left.

    Those that are read on demand are read once for each pass over some blocks.

    Raises `ValueError` when there are none, and when two write one target.
    """
    pairs = in_order(dictionaries)
    _check_targets([target for _, target in pairs])
    dictionaries = fitting(dictionaries, model)
    report(0, len(blocks))
    means = site_means(model, dictionaries, blocks.split(BLOCKS_PER_PASS))
    parts: list[Sums] = []
    for tokens in blocks.split(BLOCKS_PER_PASS):
        clean = clean_run(model, set(pairs), tokens)
        parts.append(reference_sums(model, clean, means) | spliced_sums(model, clean, dictionaries))
        report(sum(len(part["clean"]) for part in parts), len(blocks))
    (sums,) = _on_the_host([_joined(parts)])
    return JointQuality(
        dictionaries=len(pairs),
        **_ratios(sums, SPLICE),
        intervals=_intervals(sums, SPLICE, *COSTS),
    )


def _check_targets(targets: Sequence[Site]) -> None:
    if not targets:
        raise ValueError("there are no dictionaries to splice together: give at least one")
    twice = sorted({target for target in targets if targets.count(target) > 1})
    if twice:
        raise ValueError(
            f"several dictionaries write {', '.join(map(str, twice))}: "
            "expected one for each target, choose between them"
        )


@dataclass
class _Tally:
    """Sums of one dictionary over the text so far."""

    dictionary: SparseDictionary
    means: Float[Tensor, "2 d_target"]
    parts: list[Sums] = field(default_factory=list)
    fired: Int[Tensor, " features"] = field(init=False)
    "the number of tokens that each feature fired on"

    def __post_init__(self) -> None:
        self.fired = torch.zeros_like(self.dictionary.b_enc, dtype=torch.long)

    def add(self, clean: CleanRun, splice: Sums) -> None:
        source, target = self.dictionary.source, self.dictionary.target
        x, y, inlier = clean.values[source], clean.values[target], ~clean.outliers[source, target]
        f = self.dictionary.encode(x)
        y_hat = self.dictionary.decode(f) + self.dictionary.skip(x)
        fires = (f.value != 0) & inlier.unsqueeze(-1)
        error = (y - y_hat).double().square().sum(-1)
        spread, spread_all = ((y.double() - mean).square().sum(-1) for mean in self.means)
        cosine = F.cosine_similarity(y, y_hat, dim=-1)
        self.fired.index_add_(0, f.index.flatten(), fires.flatten().long())
        self.parts.append(
            splice
            | {
                "tokens": inlier.double().sum(-1),
                "outliers": (~inlier).double().sum(-1),
                "active": fires.double().sum((1, 2)),
                "error": (error * inlier).sum(-1),
                "error_all": error.sum(-1),
                "spread": (spread * inlier).sum(-1),
                "spread_all": spread_all.sum(-1),
                "cosine": (cosine.double() * inlier).sum(-1),
            }
        )


def _quality(dictionary: SparseDictionary, sums: Sums) -> Quality:
    """The figures that follow from a dictionary's sums, and how often each feature `fired`."""
    if not sums["spread"].sum():
        raise ValueError(
            f"{dictionary.target} is the same on every token of the text, so there is no "
            "variance to explain: judge on more text"
        )
    figures = _ratios(sums, RECONSTRUCTION | SPLICE)
    density = sums["fired"].double() / sums["tokens"].sum()
    return Quality(
        tokens=int(sums["tokens"].sum()),
        outliers=int(sums["outliers"].sum()),
        explained_variance=1 - figures["fvu"],
        dead=float((density == 0).double().mean()),
        dense=int((density > DENSE).sum()),
        density=_histogram(density),
        **figures,
        intervals=_intervals(sums, RECONSTRUCTION | SPLICE, "fvu", "l0", *COSTS),
    )


def _joined(parts: Sequence[Sums]) -> Sums:
    """The sums of all blocks, and their differences that figures are made of."""
    sums = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name in {name for pair in SPLICE.values() for name in pair if " - " in name}:
        one, other = name.split(" - ")
        sums[name] = sums[one] - sums[other]
    return sums


def _on_the_host(sums: Sequence[Sums]) -> list[Sums]:
    """The same sums, all brought over in one copy: each copy waits for the device."""
    values = iter(to_host([value for one in sums for value in one.values()]))
    return [{name: next(values) for name in one} for one in sums]


def _ratios(sums: Sums, which: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {name: ratio(sums[above], sums[below]) for name, (above, below) in which.items()}


def _intervals(
    sums: Sums, which: Mapping[str, tuple[str, str]], *names: str
) -> dict[str, Interval]:
    return {name: ratio_interval(*(sums[one] for one in which[name])) for name in names}


def _histogram(density: Float[Tensor, " features"]) -> dict[str, int]:
    """Features that fired at all, by decade of the share of tokens they fired on."""
    ends = torch.tensor(list(DECADES.values()), dtype=density.dtype)
    counts = torch.bincount(torch.bucketize(density[density > 0], ends), minlength=len(ends))
    return dict(zip(DECADES, counts.tolist(), strict=True))
