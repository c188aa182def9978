"""One file of weights, read in the ways that conventions say, at some sites' activations.

Axes: `tokens` those that are no norm outliers; `s` and `t` the widths of what is read and written.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saes.evaluation.conventions import Convention, SiteShift
from saes.evaluation.readings import Reader, ReadingVariant, Scaling, scaling_by_token
from saes.evaluation.splice import is_outlier_pair
from saes.formats.checkpoint import Checkpoint
from saes.formats.mapped import BY_TOKEN, MEASURED, NONE, SIGNED, DictionaryMap

SAID_TO_SCALE = re.compile(r"scale|norm|factor|std", re.IGNORECASE)


@dataclass(frozen=True)
class Here:
    """The tokens of some blocks at one pair of sites that are no outliers."""

    x: Float[Tensor, "tokens s"]
    y: Float[Tensor, "tokens t"]
    block: Int[Tensor, " tokens"]
    spread: Float[Tensor, " blocks"]

    @classmethod
    def of(cls, x: Float[Tensor, "blocks pos s"], y: Float[Tensor, "blocks pos t"]) -> "Here":
        block, pos = (~is_outlier_pair(x, y)).nonzero(as_tuple=True)
        kept_x, kept_y = x[block, pos], y[block, pos]
        away = (kept_y.double() - kept_y.double().mean(0)).square().sum(-1)
        return cls(kept_x, kept_y, block, away.new_zeros(len(x)).index_add_(0, block, away))

    def by_block(self, errors: Float[Tensor, " tokens"]) -> Float[Tensor, " blocks"]:
        return torch.zeros_like(self.spread).index_add_(0, self.block, errors)


@dataclass(frozen=True)
class TriedFile:
    """One of the files that are tried."""

    what: DictionaryMap
    file: Checkpoint

    def options(self, s: int, t: int) -> tuple[Sequence[str], ...]:
        """What there is to choose for each term but the site, the map's own first."""
        what, tensors = self.what, self._tensors()
        turns = [
            self._turns(name, tensors[name], width) for name, width in (("W_enc", s), ("W_dec", t))
        ]
        own = [self.what.scale] if what.scale != NONE else []
        named = [n for n in self.file.numbers() if SAID_TO_SCALE.search(n.rpartition(".")[2])]
        named = [n for n in named if float(self.file.leaves[n]) > 0][:2]
        scales = [
            *own,
            NONE,
            *MEASURED,
            *(f"{by}{n}" for n in named for by in ("", "1/", "sqrt(d)/")),
        ]
        if self.file.entry.source == self.file.entry.target:
            scales += BY_TOKEN
        vectors = [
            name
            for name, value in self.file.leaves.items()
            if tuple(value.shape) == (s,) and name not in what.tensors.values()
        ]
        centres = [what.centre, NONE, *(["b_dec"] if "b_dec" in tensors else []), *vectors[:2]]
        signs = ["topk", SIGNED] if what.activation in ("topk", SIGNED) else [what.activation]
        signs.sort(key=lambda sign: sign != what.activation)
        return (*turns, *(list(dict.fromkeys(x)) for x in (scales, centres)), signs)

    def given(self, move: tuple[SiteShift, SiteShift]) -> Convention:
        """The map as it stands."""
        what, tensors = self.what, self._tensors()
        axes = self._plain({}).axes_of(self.file, tensors)
        W_enc, W_dec = (re.sub("[st]", "d", axes[name]) for name in ("W_enc", "W_dec"))
        return Convention(*move, W_enc, W_dec, what.scale, what.centre, what.activation)

    def sums(
        self, here: Here, conventions: Sequence[Convention], control: int | None
    ) -> Iterator[tuple[Convention, tuple[Tensor, Tensor]]]:
        """Errors and spread by block, of the file or of an untrained dictionary in its place."""
        tensors = self._tensors()
        for turned in dict.fromkeys((c.W_enc, c.W_dec) for c in conventions):
            plain = self._plain(dict(zip(("W_enc", "W_dec"), turned, strict=True)))
            reader = Reader(plain.terms(self.file, tensors), tensors, here.x)
            if control is not None:
                reader.forget(control)
            of = [c for c in conventions if (c.W_enc, c.W_dec) == turned]
            raw = here.x if reader.mean is None else here.x - reader.mean
            out = here.y if reader.mean is None else here.y - reader.mean
            ways = {
                str(i): ReadingVariant(
                    self._scaling(c.scale, raw, out), self._centre(c.centre), c.activation == SIGNED
                )
                for i, c in enumerate(of)
            }
            for name, errors in reader.errors(here.x, here.y, ways).items():
                yield of[int(name)], (here.by_block(errors), here.spread)

    def _tensors(self) -> dict[str, Tensor]:
        return replace(self.what, centre=NONE).tensors_of(self.file)

    def _plain(self, turns: Mapping[str, str]) -> DictionaryMap:
        """The map without what is tried."""
        orientation = {**self.what.orientation, **turns}
        return replace(self.what, orientation=orientation, scale=NONE, target_scale="", centre=NONE)

    def _turns(self, name: str, value: Tensor, width: int) -> list[str]:
        shape = tuple(value.shape)
        found = ["md"] * (shape[-1] == width) + ["dm"] * (shape[0] == width)
        if len(shape) != 2 or not found:
            raise ValueError(
                f"{self.file.path}: {name} has shape {shape}, but the model is {width} wide: it is "
                "another model's"
            )
        return sorted(found, key=lambda way: way != self.what.orientation.get(name))

    def _centre(self, name: str) -> Tensor | None:
        if name == NONE:
            return None
        return self._tensors()["b_dec"] if name == "b_dec" else self.file.tensor(name, "centre")

    def _scaling(self, text: str, x: Tensor, y: Tensor) -> Scaling:
        """The scale that a map calls `text`, of these activations."""
        if text == NONE:
            return Scaling()
        if text in BY_TOKEN:
            return scaling_by_token(text, x)
        what = replace(self.what, scale=text, target_scale="")
        if text == self.what.scale:
            what = replace(what, target_scale=self.what.target_scale)
        what = what.measured(mean_norm(x), mean_norm(y), x.shape[-1], y.shape[-1])
        return Scaling(*what.scales(self.file, x.shape[-1]))


def mean_norm(x: Float[Tensor, "tokens d"]) -> float:
    """Of activations that are no outliers."""
    return float(x.norm(dim=-1).mean())
