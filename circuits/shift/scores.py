"""How well a classifier does where the intended and the spurious signal are independent.

    label      share of texts whose class it says
    spurious   share of texts whose spurious class it says (0.5: it does not go by it)
    groups     share right in each of the four groups of label and spurious class
    worst      the smallest of these

Intervals are bootstrapped over seeds and, in each, over the texts of each group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval

DRAWS = 1000
GroupAccuracies = Float[Tensor, "*draws 4"]
"Share right by group: label 0 spurious 0, 0 1, 1 0, 1 1."


@dataclass(frozen=True, eq=False)
class ProbePredictions:
    """The classes predicted for the test texts of one seed, beside the true ones."""

    one: Bool[Tensor, " texts"]
    "that the text is of class 1"
    label: Bool[Tensor, " texts"]
    spurious: Bool[Tensor, " texts"]

    def right(self) -> list[Bool[Tensor, " members"]]:
        """For each group, which of its texts it has right."""
        return [
            (self.one == self.label)[(self.label == label) & (self.spurious == spurious)]
            for label in (False, True)
            for spurious in (False, True)
        ]


def label_accuracy(groups: GroupAccuracies) -> Tensor:
    return groups.mean(-1)


def spurious_accuracy(groups: GroupAccuracies) -> Tensor:
    """A text of label 0 that is right is said to be 0, and so is one of spurious class 0."""
    same, other = groups[..., [0, 3]].sum(-1), groups[..., [1, 2]].sum(-1)
    return (same + 2 - other) / 4


def worst(groups: GroupAccuracies) -> Tensor:
    return groups.amin(-1)


NUMBERS: dict[str, Callable[[GroupAccuracies], Tensor]] = {
    "label": label_accuracy,
    "spurious": spurious_accuracy,
    "worst": worst,
}


@dataclass(frozen=True, kw_only=True)
class MeanWithInterval:
    """A number with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ClassifierScores:
    """The numbers of one classifier, means over seeds."""

    label: MeanWithInterval
    spurious: MeanWithInterval
    worst: MeanWithInterval
    groups: list[MeanWithInterval]


def scores(runs: Sequence[Sequence[ProbePredictions]], *, seed: int = 0) -> ClassifierScores:
    """Of a classifier's runs: one list for each seed, in it one for each random draw, if any."""
    right = [[said.right() for said in draws] for draws in runs]
    value = torch.stack(
        [torch.stack([_shares(r) for r in draws]).mean(0) for draws in right]
    )  # [seeds, 4]; the worst group is that of each seed's mean over draws
    drawn = _drawn(right, seed)
    numbers = {
        name: MeanWithInterval(value=float(of(value).mean()), interval=interval(of(drawn).mean(0)))
        for name, of in NUMBERS.items()
    }
    groups = [
        MeanWithInterval(value=float(value[:, g].mean()), interval=interval(drawn[..., g].mean(0)))
        for g in range(4)
    ]
    return ClassifierScores(**numbers, groups=groups)


def _shares(right: Sequence[Bool[Tensor, " members"]]) -> Float[Tensor, " 4"]:
    return torch.stack([r.double().mean() for r in right])


def _drawn(
    right: Sequence[Sequence[Sequence[Bool[Tensor, " members"]]]], seed: int
) -> Float[Tensor, "seeds draws 4"]:
    """The shares right of as many seeds and texts, drawn again with replacement."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(right), (len(right), DRAWS), generator=generator)
    of_seed = torch.stack([_resampled(draws, generator) for draws in right])
    return torch.stack([of_seed[row, torch.arange(DRAWS)] for row in which])


def _resampled(
    draws: Sequence[Sequence[Bool[Tensor, " members"]]], generator: torch.Generator
) -> Float[Tensor, "draws 4"]:
    """The shares right of one seed with its texts drawn again; random draws are averaged."""
    found = []
    for group in zip(*draws, strict=True):
        right = torch.stack([r.double() for r in group]).mean(0)
        drawn = torch.randint(len(right), (DRAWS, len(right)), generator=generator)
        found.append(right[drawn].mean(-1))
    return torch.stack(found, -1)
