"""What is left of a seed once its methods ran: numbers and words, no tensors of the model.

Beside an unfinished run each is a file, `seed-0003.json`: numbers to the last bit, of every method
of each draw, a digit a test text, 1 for class 1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.graph import write_json
from circuits.shift.judging import Judged
from circuits.shift.scores import ProbePredictions
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site

SEEDS = "seed-*.json"
"What their files are called."


@dataclass(frozen=True, kw_only=True)
class FinishedSeed:
    """One seed's results."""

    site: Site
    "where its probe reads"
    losses: Mapping[Site, float]
    "log loss on held-out ambiguous texts of a probe at each site"
    features: Sequence[Judged]
    "of its circuit, or where a file or a person judges of the first seed's"
    said: Mapping[str, Sequence[ProbePredictions]]
    "by method: what each draw says of the test texts"

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        record = {
            "site": str(self.site),
            "losses": {str(site): loss for site, loss in self.losses.items()},
            "features": [vars(f) | {"node": str(f.node)} for f in self.features],
            "said": {name: [_digits(said) for said in draws] for name, draws in self.said.items()},
        }
        write_json(record, path)

    @classmethod
    def load(cls, path: Path) -> "FinishedSeed":
        """Read what `save` wrote."""
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            site=Site.parse(record["site"]),
            losses={Site.parse(name): loss for name, loss in record["losses"].items()},
            features=[
                Judged(**fields | {"node": Node.parse(fields["node"])})
                for fields in record["features"]
            ],
            said={name: [_said(one) for one in draws] for name, draws in record["said"].items()},
        )


@dataclass(frozen=True)
class FinishedSeeds:
    """Those that are done, in a folder; without one nothing is kept."""

    folder: Path | None = None

    def get(self, seed: int) -> FinishedSeed | None:
        """The seed's results, if it is done."""
        path = self._path(seed)
        return FinishedSeed.load(path) if path is not None and path.exists() else None

    def keep(self, seed: int, found: FinishedSeed) -> FinishedSeed:
        """Keep the results, and give them back."""
        path = self._path(seed)
        if path is not None:
            found.save(path)
        return found

    def _path(self, seed: int) -> Path | None:
        return None if self.folder is None else self.folder / SEEDS.replace("*", f"{seed:04}")


def _digits(said: ProbePredictions) -> dict[str, str]:
    return {name: "".join(map(str, x.int().tolist())) for name, x in vars(said).items()}


def _said(record: Mapping[str, str]) -> ProbePredictions:
    def flags(digits: str) -> Bool[Tensor, " texts"]:
        return torch.tensor([digit == "1" for digit in digits])

    return ProbePredictions(**{name: flags(digits) for name, digits in record.items()})
