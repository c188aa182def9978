"""What a circuit is a circuit *of*: a number for each prompt.

Most are computed from the prompt's last logits; any function of these is a metric:

    logit-difference   mean logit of the right answers - mean logit of the wrong ones
                       (of the whole vocabulary, for a prompt without wrong answers)
    log-probability    log of the summed probability of the right answers
    probability-difference
                       summed probability of the right answers - that of the wrong ones
    kl                 sum over tokens of p (log p - log q), p of the clean run, q of the run

Units: logits, nats, none, nats. A divergence is 0 on the clean run and so is its gradient: it can
be integrated and measured, but one gradient at the clean run says nothing of it.

A `SiteMetric` reads the tensor at one site instead (see `circuits.metrics.readout`): a feature's
activation, a linear probe. Nodes behind the site, and at later positions, have no effect on it.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import unembed
from hooked_qwen.hooks import capture, capture_arriving
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site

Logits = Float[Tensor, "batch vocabulary"]
LogitMetric = Callable[[Logits, Int[Tensor, " batch"]], Float[Tensor, " batch"]]
"Takes logits after the last token and the index of each row's prompt in the prompt set."
NAMES = ("logit-difference", "log-probability", "probability-difference", "kl")
Ids = Sequence[Sequence[int]]
EachColumn = Callable[
    [Float[Tensor, "batch pos d_site"], Int[Tensor, " batch"]], Float[Tensor, "batch pos"]
]
"A number for each of the last columns of some prompts, given by their numbers."


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteMetric:
    """A number read from one site's tensor, bound to a prompt set."""

    site: Site
    when: Literal["arriving", "leaving"]
    "whether it is read before or after the site's own nodes change"
    weights: Float[Tensor, "prompts pos"]
    "what each column of a prompt counts for: 1 at the one that is read, or shares of a mean"
    value: Callable[[Float[Tensor, "batch d_site"]], Float[Tensor, " batch"]] | None
    "of the mean of the columns; None where `each` is given"
    clean: Float[Tensor, " prompts"]
    patch: Float[Tensor, " prompts"] | None
    each: EachColumn | None = None
    "of every column, of which the metric is the mean"

    def weights_of(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch pos"]:
        """`weights` of some prompts, on the device of their numbers."""
        return self.weights.to(rows.device)[rows]

    def read(
        self, tensor: Float[Tensor, "batch pos d_site"], rows: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """The metric of prompts `rows` with this at the site.

        `pos` may leave out early columns that count for nothing.
        """
        weights = self.weights_of(rows.to(tensor.device))[:, -tensor.shape[1] :]
        here = widened(tensor)
        if self.each is not None:
            of_each = self.each(here, rows.to(tensor.device))
            return (weights.to(of_each) * of_each).sum(-1)
        assert self.value is not None, "a metric is of the mean of columns, or of each"
        return self.value(einsum(weights.to(here), here, "batch pos, batch pos d -> batch d"))


Metric = LogitMetric | SiteMetric
ReadMetric = Callable[[Float[Tensor, "batch 1 d_model"] | None, Int[Tensor, " batch"]], Tensor]
"The metric of prompts, after a run that ended in that stream at the last token."


class RowsByPrompt:
    """A row for each prompt of a set, on whatever device the numbers of the prompts are."""

    def __init__(self, rows: Shaped[Tensor, "prompts *any"]) -> None:
        self._rows = rows

    def __getitem__(self, rows: Int[Tensor, " batch"]) -> Shaped[Tensor, "batch *any"]:
        # Moved once: every move makes the host wait.
        if self._rows.device != rows.device:
            self._rows = self._rows.to(rows.device)
        return self._rows[rows]


class LogitDifference:
    """A weighted sum of logits for each prompt, less the vocabulary's mean where none is wrong."""

    def __init__(
        self,
        index: Int[Tensor, "prompts named"],
        weight: Float[Tensor, "prompts named"],
        unopposed: Bool[Tensor, " prompts"],
    ) -> None:
        self.index, self.weight = RowsByPrompt(index), RowsByPrompt(weight)
        self.alone = RowsByPrompt(unopposed) if unopposed.any() else None
        self.tokens, places = index.unique(return_inverse=True)
        self.places = RowsByPrompt(places)

    def __call__(self, logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        rows = rows.to(logits.device)
        difference = self._sum(logits, self.index[rows], rows)
        return difference if self.alone is None else difference - self.alone[rows] * logits.mean(-1)

    def at(
        self, model: TransformerBridge, last: Float[Tensor, "batch 1 d_model"], rows: Tensor
    ) -> Float[Tensor, " batch"]:
        """Of the stream that leaves the last block: no other tokens are unembedded than named."""
        self.tokens = self.tokens.to(last.device)
        return self._sum(unembed(model, last, self.tokens).squeeze(1), self.places[rows], rows)

    def _sum(
        self,
        logits: Float[Tensor, "batch some"],
        places: Int[Tensor, "batch named"],
        rows: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        return (logits.gather(1, places) * self.weight[rows].to(logits)).sum(-1)


def logit_difference(
    answers: Ids, wrongs: Ids, *, weights: Sequence[Sequence[float]] | None = None
) -> LogitDifference:
    """Mean logit of the right answers minus mean logit of the wrong ones.

        m = sum over a of p_a logit[a] - mean over w of logit[w]      p_a = 1 / number of answers

    or p_a = `weights`, which add up to 1. Where a prompt has no wrong answer, the mean is over
    the whole vocabulary. Units: logits. Positive means that the model prefers the right answer.
    """
    shares = weights or [[1 / len(right)] * len(right) for right in answers]
    rows = [[*right, *wrong] for right, wrong in zip(answers, wrongs, strict=True)]
    signed = [
        [*share, *(-1 / len(wrong) for _ in wrong)]
        for share, wrong in zip(shares, wrongs, strict=True)
    ]
    unopposed = torch.tensor([not wrong for wrong in wrongs])
    return LogitDifference(_padded(rows), _padded(signed), unopposed)


def log_probability(answers: Ids) -> LogitMetric:
    """Logarithm of the probability that the next token is one of the right answers, in nats."""
    index = RowsByPrompt(_padded(answers))
    real = RowsByPrompt(_padded([[True] * len(right) for right in answers]))

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        rows = rows.to(logits.device)
        chosen = logits.log_softmax(-1).gather(1, index[rows])
        return chosen.masked_fill(~real[rows], -torch.inf).logsumexp(-1)

    return metric


def probability_difference(answers: Ids, wrongs: Ids) -> LogitMetric:
    """Probability that the next token is one of the right answers, less that of the wrong ones.

    Of a prompt without wrong answers it is the right ones' probability.

    Source: Hanna et al. 2023, arXiv:2305.00586 (greater-than: all years that are right against all
    that are wrong).
    """
    rows = [[*right, *wrong] for right, wrong in zip(answers, wrongs, strict=True)]
    signs = [
        [1.0] * len(right) + [-1.0] * len(wrong)
        for right, wrong in zip(answers, wrongs, strict=True)
    ]
    index, sign = RowsByPrompt(_padded(rows)), RowsByPrompt(_padded(signs))

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        rows = rows.to(logits.device)
        chosen = logits.softmax(-1).gather(1, index[rows])
        return (chosen * sign[rows].to(chosen)).sum(-1)

    return metric


def divergence(clean: Float[Tensor, "prompts vocabulary"]) -> LogitMetric:
    """KL divergence from each prompt's `clean` next-token distribution, in nats; 0 where equal."""

    table = RowsByPrompt(clean)

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        p, q = table[rows.to(logits.device)].to(logits).log_softmax(-1), logits.log_softmax(-1)
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)

    return metric


def readout(weight: Float[Tensor, " vocabulary"], bias: float = 0.0) -> LogitMetric:
    """The logit of a linear probe that reads the next-token logits."""
    return lambda logits, rows: logits @ weight.to(logits) + bias


def metric_at(
    model: TransformerBridge,
    last: Float[Tensor, "batch 1 d_model"],
    metric: LogitMetric,
    rows: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """The metric of prompts `rows` when `last` leaves the last block at the last token.

    A logit difference unembeds the tokens that it names and no others.
    """
    if isinstance(metric, LogitDifference) and metric.alone is None:
        return metric.at(model, last, rows)
    return metric(unembed(model, last).squeeze(1), rows)


def on_clean(
    metric: Metric, logits: Logits, rows: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The metric of the clean prompts `rows`, whose last logits are `logits`."""
    if isinstance(metric, SiteMetric):
        return metric.clean[rows.to(metric.clean.device)].to(logits)
    return metric(logits, rows)


def on_patch(
    metric: Metric, logits: Logits, rows: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The metric of the patch prompts `rows`, whose last logits are `logits`."""
    if isinstance(metric, SiteMetric):
        assert metric.patch is not None, "prompts with patch logits have a patch"
        return metric.patch[rows.to(metric.patch.device)].to(logits)
    return metric(logits, rows)


def reaches(metric: Metric, site: Site) -> bool:
    """Whether moving the tensor at `site` can change the metric."""
    if not isinstance(metric, SiteMetric):
        return True
    return site < metric.site or (site == metric.site and metric.when == "leaving")


def counts(
    metric: Metric, site: Site, changes: Float[Tensor, "nodes batch pos d_site"], rows: Tensor
) -> Bool[Tensor, "nodes batch"]:
    """Where some of `changes` at `site`, on prompts `rows`, can change the metric."""
    changed = changes.any(-1)
    if isinstance(metric, SiteMetric):
        read = metric.weights_of(rows.to(changed.device)) != 0
        # A column reaches those behind it: some column from here on is read.
        reached = read.flip(-1).cumsum(-1).flip(-1) > 0
        changed = changed & reached[:, -changed.shape[-1] :] & reaches(metric, site)
    return changed.any(-1)


def reaching(metric: Metric, sites: Iterable[Site]) -> list[Site]:
    """Those of `sites` that can change the metric."""
    return [site for site in sites if reaches(metric, site)]


@contextmanager
def reading(
    model: TransformerBridge, metric: Metric, edits: AbstractContextManager[Any] | None = None
) -> Generator[ReadMetric, None, None]:
    """Yield what gives the metric of a run inside the block, in which `edits` hold.

    Raises `RuntimeError` on leaving if a site that the metric reads was never reached.
    """
    edits = edits or nullcontext()
    if not isinstance(metric, SiteMetric):
        logit_metric = metric
        with edits:
            yield lambda last, rows: metric_at(model, _known(last), logit_metric, rows)
        return
    with ExitStack() as stack:
        if metric.when == "leaving":
            stack.enter_context(edits)
        look = capture_arriving if metric.when == "arriving" else capture
        seen = stack.enter_context(look(model, {metric.site}))
        if metric.when == "arriving":
            stack.enter_context(edits)
        yield lambda last, rows: metric.read(seen[metric.site], rows)


def _known(last: Tensor | None) -> Tensor:
    assert last is not None, "a metric of logits needs the last stream"
    return last


def _padded(rows: Sequence[Sequence[int | float]]) -> Shaped[Tensor, "rows longest"]:
    """Rows of numbers, filled up with zeros on the right."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
