"""k-sparse probing: can a few features tell two kinds of text apart?

    P(second label) = sigmoid(b + sum over the chosen features of w_i z_i)

z_i is feature i pooled over a text's tokens and standardised on the train half. The k features
with the largest |mean of z_i with one label - mean with the other| on the train half are chosen,
w and b minimise, on that half,

    mean log loss + |w|^2 / (2 n)

and the accuracy is that on the test half. Beside the features of a dictionary stand the
coordinates of its target, an untrained dictionary, and all coordinates of the residual stream
after the same layer at once: what is linearly there to be found.

Source: Gurnee et al. 2023, arXiv:2305.01610.
Differs: ranked by the difference of means in units of the standard deviation, so that a
coordinate with large values is not preferred.

Axes: `texts` labelled texts, `d` features or coordinates, `chosen` k of them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.texts import json_lines
from hooked_qwen.tokens import by_length, encode_prompt
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary, fitted
from saes.evaluation.baselines import untrained
from saes.evaluation.bootstrap import Interval, ratio_interval
from saes.evaluation.splice import is_outlier_pair, unpadded
from saes.features import Features
from saes.suite import Suite

Pooling = Literal["mean", "max"]
SIZES = (1, 2, 5, 16)
LONGEST = 128
"Tokens of a text that are read; the rest is cut."
TEXTS_PER_PASS = 32


@dataclass(frozen=True)
class Labelled:
    """A text of one of two kinds."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """How well a probe tells the texts of the test half apart."""

    reads: str
    "`features`, `coordinates` of the target, `untrained` features, or the whole `residual`"
    chosen: list[int] | None
    "the features or coordinates used, best first; None where all are"
    accuracy: float
    interval: Interval
    "95 % bootstrap over texts"


@dataclass(frozen=True, kw_only=True)
class Probing:
    """The probes of one dictionary on one set of labelled texts."""

    labels: list[str]
    pool: Pooling
    train: int
    "texts that features were chosen and weights fitted on"
    test: int
    majority: float
    "accuracy of always saying the more frequent label, on the test half"
    probes: list[ProbeScore]


def read_labelled(path: Path) -> list[Labelled]:
    """JSON Lines with `text` and `label`, both strings.

    Raises `ValueError` naming the file and the line of anything else.
    """
    if not path.is_file():
        raise ValueError(f"there are no labelled texts at {path}: expected a JSON Lines file")
    examples = []
    for number, line in json_lines(path):
        try:
            record = json.loads(line)
            text, label = record["text"], record["label"]
        except (ValueError, KeyError, TypeError):
            text = label = None
        if not (isinstance(text, str) and text and isinstance(label, str)):
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with a "text" that is not empty '
                'and a "label", both strings in UTF-8'
            )
        examples.append(Labelled(text, label))
    return examples


@torch.no_grad()
def probe(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    examples: Sequence[Labelled],
    *,
    pool: Pooling = "mean",
    seed: int = 0,
    texts_per_pass: int = TEXTS_PER_PASS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Probing:
    """Probes of 1, 2, 5 and 16 features, beside their controls.

    Features are pooled over the tokens that are no norm outlier by their `mean` or their `max`.
    Half of the texts of each label train, the other half test. `report` is called with the
    texts read and the texts there are.

    Raises `ValueError` for other than two labels, and for fewer than four texts of one.
    """
    labels, positive = _two_labels(examples)
    dictionary = fitted(dictionary, model)
    pooled = _pooled(model, dictionary, [e.text for e in examples], pool, texts_per_pass, report)
    train = _half(positive, seed)
    probes = []
    for reads, z in pooled.items():
        z = standardised(z.double(), train)
        if reads == "residual":
            probes.append(_fitted(reads, z, positive, train, None, seed))
            continue
        best = _ranked(z[train], positive[train])
        sizes = [k for k in SIZES if k <= len(best)]
        probes += [_fitted(reads, z, positive, train, best[:k], seed) for k in sizes]
    share = float(positive[~train].double().mean())
    return Probing(
        labels=labels,
        pool=pool,
        train=int(train.sum()),
        test=int((~train).sum()),
        majority=max(share, 1 - share),
        probes=probes,
    )


def _two_labels(examples: Sequence[Labelled]) -> tuple[list[str], Bool[Tensor, " texts"]]:
    labels = sorted({e.label for e in examples})
    if len(labels) != 2:
        raise ValueError(
            f"a probe tells two labels apart, and the texts have {len(labels)}: "
            f"{', '.join(labels[:5]) or 'none'}"
        )
    positive = torch.tensor([e.label == labels[1] for e in examples])
    for label, count in zip(labels, (int((~positive).sum()), int(positive.sum())), strict=True):
        if count < 4:
            raise ValueError(f"there are {count} texts labelled {label!r}: expected at least 4")
    return labels, positive


def _half(positive: Bool[Tensor, " texts"], seed: int) -> Bool[Tensor, " texts"]:
    """Half of the texts of each label, for training."""
    generator = torch.Generator().manual_seed(seed)
    train = torch.zeros_like(positive)
    for members in (positive.nonzero().flatten(), (~positive).nonzero().flatten()):
        order = torch.randperm(len(members), generator=generator)
        train[members[order[: len(members) // 2]]] = True
    return train


def _pooled(
    model: TransformerBridge,
    dictionary: SparseDictionary,
    texts: Sequence[str],
    pool: Pooling,
    texts_per_pass: int,
    report: Callable[[int, int], None],
) -> dict[str, Float[Tensor, "texts _"]]:
    """What each kind of probe reads of each text; texts of one length run together, unpadded."""
    (random,) = untrained(Suite({dictionary.target: dictionary}, {})).values()
    source, target = dictionary.source, dictionary.target
    stream = Site("resid_post", target.layer)
    found: dict[str, list[Tensor]] = {}
    order: list[int] = []
    report(0, len(texts))
    rows = [encode_prompt(model.tokenizer, text)[:LONGEST] for text in texts]
    for index, tokens in by_length(rows, texts_per_pass):
        with capture(model, {source, target, stream}) as values:
            run_through(model, unpadded(tokens), max(source.layer, stream.layer))
        x, y = values[source], values[target]
        keep = ~is_outlier_pair(x, y)
        keep |= ~keep.any(1, keepdim=True)
        read = {
            "features": dictionary.encode(x),
            "coordinates": Features.of_coordinates(y),
            "untrained": random.encode(y),
            "residual": Features.of_coordinates(values[stream]),
        }
        for name, features in read.items():
            parts = [_pool(f, keep.unsqueeze(-1), pool) for _, f in features.dense_parts()]
            found.setdefault(name, []).append(torch.cat(parts, 1))
        order += index
        report(len(order), len(texts))
    back = torch.tensor(order).argsort()
    read = to_host([torch.cat(parts) for parts in found.values()])
    return {name: value[back] for name, value in zip(found, read, strict=True)}


def _pool(
    value: Float[Tensor, "batch pos d"], keep: Bool[Tensor, "batch pos 1"], pool: Pooling
) -> Float[Tensor, "batch d"]:
    if pool == "max":
        return value.where(keep, -torch.inf).amax(1)
    return (value * keep).sum(1) / keep.sum(1)


def standardised(
    z: Float[Tensor, "texts d"], train: Bool[Tensor, " texts"]
) -> Float[Tensor, "texts d"]:
    """Zero mean and unit variance on the train half; what is constant there becomes 0."""
    centred, spread = z - z[train].mean(0), z[train].std(0, correction=0)
    return torch.where(spread > 0, centred / spread, 0.0)


def _ranked(z: Float[Tensor, "train d"], positive: Bool[Tensor, " train"]) -> list[int]:
    """Features by the difference between the labels' means, largest first."""
    difference = (z[positive].mean(0) - z[~positive].mean(0)).abs()
    return difference.argsort(descending=True, stable=True).tolist()


def _fitted(
    reads: str,
    z: Float[Tensor, "texts d"],
    positive: Bool[Tensor, " texts"],
    train: Bool[Tensor, " texts"],
    chosen: list[int] | None,
    seed: int,
) -> ProbeScore:
    """A probe of the `chosen` columns, or of all, fitted on one half and judged on the other."""
    columns = z if chosen is None else z[:, chosen]
    w, b = logistic(columns[train], positive[train])
    right = ((columns[~train] @ w + b > 0) == positive[~train]).double()
    return ProbeScore(
        reads=reads,
        chosen=chosen,
        accuracy=float(right.mean()),
        interval=ratio_interval(right, torch.ones_like(right), seed=seed),
    )


def logistic(
    z: Float[Tensor, "texts chosen"], positive: Bool[Tensor, " texts"]
) -> tuple[Float[Tensor, " chosen"], Float[Tensor, ""]]:
    """Weights and bias that minimise mean log loss + |w|^2 / (2 n)."""
    w, b, y = z.new_zeros(z.shape[1]), z.new_zeros(()), positive.to(z.dtype)
    optimiser = torch.optim.LBFGS(
        [w, b],
        max_iter=500,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        logits = z @ w + b
        # By hand: autograd takes longer than all the rest.
        above = (logits.sigmoid() - y) / len(z)
        w.grad, b.grad = z.T @ above + w / len(z), above.sum()
        value = F.binary_cross_entropy_with_logits(logits, y) + w.square().sum() / (2 * len(z))
        return float(value)

    optimiser.step(loss)
    return w, b
