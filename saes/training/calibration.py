"""Thresholds of batch-topk and matryoshka: what k features of an average token exceed.

In training these keep the `k * tokens` largest features of a batch. A dictionary in use meets any
number of tokens, so a threshold takes the place of the comparison, one for all features in
training's units:

    threshold = the (k * tokens + 1)-th largest pre-activation      of all features and tokens

over the activations that follow those trained on, with the weights as they are saved, norm
outliers left out as in training.

Source: Bussmann et al. 2024, arXiv:2412.06410.
Differs: they average the smallest feature kept in a batch while the weights still change, and
that falls as training goes on: its mean lags behind and lets too few features through.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.stream import ActivationBatch
from saes.training.trainer import DictionaryTrainer

CALIBRATION_TOKENS = 65_536
"""Activations that thresholds are set on; at most four times those trained on.

Passages differ: the L0 of 16,384 tokens of running text is up to 4 % from that of the next.
"""


@torch.no_grad()
def calibrate(
    trainers: Sequence[DictionaryTrainer],
    following: Iterator[ActivationBatch],
    *,
    last: ActivationBatch,
    tokens: int,
    report: Callable[[int, int], None],
) -> None:
    """Set the threshold of each dictionary that needs one, on what follows in the stream.

    `tokens` is how many were trained on, `last` their last batch: where the stream has ended,
    it stands in for what would follow.
    """
    chosen = [t for t in trainers if t.architecture.threshold == "calibrated"]
    if not chosen:
        return
    size = len(next(iter(last.values.values())))
    batches = -(-min(4 * tokens, CALIBRATION_TOKENS) // size)
    searches = [LargestPerToken(t.spec.k or 0, batches * size) for t in chosen]
    first = next(following, None)
    stream = [last] if first is None else chain([first], islice(following, batches - 1))
    for done, batch in enumerate(stream, 1):
        for trainer, search in zip(chosen, searches, strict=True):
            search.add(trainer.pre_activations(batch))
        report(done, batches)
    for trainer, search in zip(chosen, searches, strict=True):
        trainer.threshold = search.threshold()


class LargestPerToken:
    """The value that k features a token exceed on average, exactly, a batch at a time."""

    def __init__(self, k: int, tokens: int) -> None:
        """For at most `tokens` tokens."""
        self.k, self.most, self.tokens = k, k * tokens + 1, 0
        self.floor: Tensor | float = 0.0
        self.parts: list[Tensor] = []

    def add(self, pre: Float[Tensor, "tokens features"]) -> None:
        """Take in the pre-activations of some tokens.

        The host waits for the device once, to know how many are kept.
        """
        self.tokens += len(pre)
        self.parts.append(pre[pre > self.floor])
        if sum(map(len, self.parts)) > 2 * self.most:
            kept = torch.cat(self.parts).topk(self.most, sorted=False).values
            self.parts, self.floor = [kept], kept.min()

    def threshold(self) -> float:
        """Zero where fewer than k features a token are positive."""
        wanted = self.k * self.tokens
        if sum(map(len, self.parts)) <= wanted:
            return 0.0
        return float(torch.cat(self.parts).topk(wanted + 1, sorted=False).values.min())
