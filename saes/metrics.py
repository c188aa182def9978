"""How good a dictionary is, on held-out text: sparsity, reconstruction, and what splicing it costs.

    FVU             sum |y - y_hat|^2 / sum |y - mean(y)|^2     fraction of variance unexplained
    loss recovered  (CE_zero - CE_spliced) / (CE_zero - CE_clean)

Cross-entropies are of the next token in nats: the model as it is, with the site's tensor replaced
by the reconstruction, and by zero. Norm outliers (see `hooked_qwen.stream`) are left out of every
figure but those called `_all`; when splicing they keep their own activation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import BlockArguments, resume, run_recording, unembed
from hooked_qwen.hooks import Edit, capture, intervene
from hooked_qwen.sites import Site
from hooked_qwen.stream import OUTLIER_FACTOR
from hooked_qwen.tokens import Batch, token_blocks
from saes.dictionary import SparseDictionary

DENSE = 0.1
"Features active on more than this share of tokens are counted: an average L0 hides them."
BLOCKS_PER_PASS = 4


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of one dictionary; see the module's docstring for the formulas."""

    tokens: int
    l0: float
    fvu: float
    fvu_all: float
    dead: float
    "share of features that never fired on these tokens"
    dense: int
    "features that fired on more than a tenth of them"
    ce_clean: float
    ce_spliced: float
    ce_zero: float
    loss_recovered: float
    loss_recovered_all: float
    kl: float
    "from the clean to the spliced next-token distribution, in nats"


def held_out_blocks(
    texts: Iterable[str], model: TransformerBridge, *, tokens: int, length: int = 128
) -> Int[Tensor, "blocks pos"]:
    """The first `tokens` tokens of `texts` in blocks; raises `ValueError` when there are none."""
    if tokens < length:
        raise ValueError(
            f"cannot judge on {tokens} tokens: at least one block of {length} is needed"
        )
    blocks = list(islice(token_blocks(texts, model.tokenizer, length=length), tokens // length))
    if not blocks:
        raise ValueError(f"the text is shorter than one block of {length} tokens")
    return torch.stack(blocks)


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
    """
    tallies = [_Tally(d) for d in dictionaries]
    clean_loss, n_targets, done = 0.0, 0, 0
    for tokens in blocks.split(BLOCKS_PER_PASS):
        clean = _clean_run(model, dictionaries, tokens)
        clean_loss += float(_loss(clean.log_probs, tokens))
        n_targets += tokens[:, 1:].numel()
        for tally in tallies:
            tally.reconstruct(clean)
            tally.splice(model, clean)
        done += len(tokens)
        report(done, len(blocks))
    return [tally.quality(clean_loss / n_targets, n_targets) for tally in tallies]


@dataclass(frozen=True)
class _CleanRun:
    tokens: Int[Tensor, "batch pos"]
    values: dict[Site, Float[Tensor, "batch pos d_model"]]
    log_probs: Float[Tensor, "batch predicted vocabulary"]
    arguments: BlockArguments


def _clean_run(
    model: TransformerBridge, dictionaries: Sequence[SparseDictionary], tokens: Tensor
) -> _CleanRun:
    last = Site("resid_post", len(model.blocks) - 1)
    sites = {last}
    for dictionary in dictionaries:
        start = Site("resid_pre", dictionary.target.layer)
        sites |= {dictionary.source, dictionary.target, start}
    batch = Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
    with capture(model, sites) as values:
        _, arguments = run_recording(model, batch)
    log_probs = unembed(model, values[last])[:, :-1].log_softmax(-1)
    return _CleanRun(tokens, values, log_probs, arguments)


def _loss(log_probs: Float[Tensor, "batch predicted vocabulary"], tokens: Tensor) -> Tensor:
    """Summed cross-entropy of the next tokens, in nats."""
    return F.nll_loss(log_probs.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


@dataclass
class _Tally:
    """Running sums for one dictionary."""

    dictionary: SparseDictionary
    tokens: int = 0
    active: float = 0.0
    fired: Tensor = field(init=False)
    errors: dict[str, float] = field(default_factory=lambda: {"inlier": 0.0, "all": 0.0})
    moments: "dict[str, _Moments]" = field(init=False)
    losses: dict[str, float] = field(default_factory=dict)
    kl: float = 0.0

    def __post_init__(self) -> None:
        self.fired = torch.zeros(self.dictionary.n_features)
        self.moments = {"inlier": _Moments(), "all": _Moments()}

    def reconstruct(self, clean: _CleanRun) -> None:
        x = clean.values[self.dictionary.source].flatten(0, 1)
        y = clean.values[self.dictionary.target].flatten(0, 1)
        inlier = ~_is_outlier(x, y)
        f = self.dictionary.encode(x)
        error = (y - self.dictionary.decode(f) - self.dictionary.skip(x)).double().square().sum(-1)
        for name, keep in (("inlier", inlier), ("all", torch.ones_like(inlier))):
            self.errors[name] += float(error[keep].sum())
            self.moments[name].add(y[keep].double())
        fires = f[inlier] > 0
        self.tokens += int(inlier.sum())
        self.active += float(fires.sum())
        self.fired += fires.sum(0)

    def splice(self, model: TransformerBridge, clean: _CleanRun) -> None:
        x, y = clean.values[self.dictionary.source], clean.values[self.dictionary.target]
        outlier = _is_outlier(x, y).unsqueeze(-1)
        spliced = self.dictionary(x)
        edits = {
            "spliced": torch.where(outlier, y, spliced),
            "spliced_all": spliced,
            "zero": torch.zeros_like(y),
        }
        for name, value in edits.items():
            log_probs = _run_with(model, clean, self.dictionary.target, value)
            loss = float(_loss(log_probs, clean.tokens))
            self.losses[name] = self.losses.get(name, 0.0) + loss
            if name == "spliced":
                self.kl += float(
                    F.kl_div(log_probs, clean.log_probs, log_target=True, reduction="sum")
                )

    def quality(self, ce_clean: float, n_targets: int) -> Quality:
        ce = {name: loss / n_targets for name, loss in self.losses.items()}
        harm = ce["zero"] - ce_clean
        density = self.fired / self.tokens
        return Quality(
            tokens=self.tokens,
            l0=self.active / self.tokens,
            fvu=self.errors["inlier"] / self.moments["inlier"].spread(),
            fvu_all=self.errors["all"] / self.moments["all"].spread(),
            dead=float((self.fired == 0).float().mean()),
            dense=int((density > DENSE).sum()),
            ce_clean=ce_clean,
            ce_spliced=ce["spliced"],
            ce_zero=ce["zero"],
            loss_recovered=(ce["zero"] - ce["spliced"]) / harm if harm else 0.0,
            loss_recovered_all=(ce["zero"] - ce["spliced_all"]) / harm if harm else 0.0,
            kl=self.kl / n_targets,
        )


@dataclass
class _Moments:
    """Sums from which the squared distance to the mean follows."""

    n: int = 0
    total: Tensor | float = 0.0
    squares: float = 0.0

    def add(self, y: Float[Tensor, "tokens d"]) -> None:
        self.n += len(y)
        self.total = self.total + y.sum(0)
        self.squares += float(y.square().sum())

    def spread(self) -> float:
        """sum |y - mean(y)|^2"""
        return self.squares - float(torch.as_tensor(self.total).square().sum()) / self.n


def _is_outlier(
    x: Float[Tensor, "*batch d_source"], y: Float[Tensor, "*batch d_target"]
) -> Bool[Tensor, "*batch"]:
    """Tokens over ten times the median norm of this pass, at the source or the target."""
    x_norm, y_norm = x.norm(dim=-1), y.norm(dim=-1)
    return (x_norm > OUTLIER_FACTOR * x_norm.median()) | (y_norm > OUTLIER_FACTOR * y_norm.median())


def _run_with(
    model: TransformerBridge, clean: _CleanRun, site: Site, value: Tensor
) -> Float[Tensor, "batch predicted vocabulary"]:
    """Log-probabilities of the next tokens with the tensor at `site` replaced by `value`."""
    replace: Edit = lambda _: value  # noqa: E731
    with intervene(model, {site: replace}):
        start = clean.values[Site("resid_pre", site.layer)]
        resid = resume(model, start, site.layer, clean.arguments)
    return unembed(model, resid)[:, :-1].log_softmax(-1)
