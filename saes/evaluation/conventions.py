"""One way to read the files of a suite, in the words of a map, and how well each does."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hooked_qwen.sites import Site
from saes.evaluation.bootstrap import Interval
from saes.formats.mapped import DictionaryMap
from saes.formats.place import Entry, Place

FITS = 0.9
"The largest FVU that fits, as a share of 1 and of what an untrained dictionary leaves."
CLOSE = 1.05
"How much worse than the best is as good as it."
SAME = 1e-6
"A difference of FVUs that is none."
OTHER_KINDS = ("resid_post", "resid_mid", "attn_out", "mlp_in", "mlp_out")


@dataclass(frozen=True)
class SiteShift:
    """A site in the place of the one that a map names."""

    kind: str
    layers: int
    "later than the map's"

    def told(self) -> str:
        """Such as `resid_post.{layer+1}`."""
        return f"{self.kind}.{{layer{self.layers:+d}}}".replace("+0", "")

    def of(self, site: Site) -> Site | None:
        """The site that is meant where the map means `site`."""
        if self.kind == "embed":
            return None if self.layers else site
        layer = site.layer + self.layers
        if self.kind == "resid_post" and layer == -1:
            return Site("resid_pre", 0)
        return Site(self.kind, layer) if layer >= 0 else None


@dataclass(frozen=True)
class Convention:
    """One way to read the files, in the words of a map."""

    source: SiteShift
    target: SiteShift
    W_enc: str
    W_dec: str
    scale: str
    centre: str
    activation: str

    def told(self) -> dict[str, str]:
        """Its terms in the words of a map; sites by how far they are from the map's."""
        terms = {k: v for k, v in vars(self).items() if k not in ("source", "target")}
        site = self.source.told()
        both = site if self.source == self.target else f"{site}-{self.target.told()}"
        return {"site": both, **terms}

    def differs(self, other: "Convention") -> dict[str, Any]:
        """The terms that this one has otherwise; both ends elsewhere are one."""
        terms = {name: value for name, value in vars(self).items() if value != vars(other)[name]}
        if "source" in terms:
            terms.pop("target", None)
        return terms


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How well one convention does."""

    convention: Convention
    fvu: float
    fvu_interval: Interval
    worse: float
    "than the best, in FVU"
    worse_interval: Interval

    @property
    def is_the_same(self) -> bool:
        """Whether it reconstructs what the best does."""
        return abs(self.worse) < SAME

    @property
    def is_close(self) -> bool:
        """Whether the text does not tell it from the best."""
        within = self.worse_interval is None or self.worse_interval[0] <= 0
        return within or self.worse <= (CLOSE - 1) * (self.fvu - self.worse)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was tried, best first, beside an untrained dictionary read in its own best way."""

    given: Convention | None
    "the map's own, where it is among them"
    tried: tuple[Tried, ...]
    untrained: float
    ways: int
    "tried in all"
    files: tuple[str, ...]
    tokens: int

    @property
    def best(self) -> Tried:
        return self.tried[0]

    @property
    def fits(self) -> bool:
        """Whether the best is any better than chance."""
        return self.best.fvu < FITS * min(1.0, self.untrained)

    @property
    def second(self) -> Tried | None:
        """The best of those that do not reconstruct the same."""
        return next((one for one in self.tried[1:] if not one.is_the_same), None)

    @property
    def is_ambiguous(self) -> bool:
        return self.second is not None and self.second.is_close


def moves_of(entry: Entry) -> list[tuple[SiteShift, SiteShift]]:
    """The map's own site first."""
    source, target = entry.source, entry.target
    moves = [(SiteShift(source.kind, n), SiteShift(target.kind, n)) for n in (0, -1, 1)]
    if source == target:
        other = [SiteShift(kind, 0) for kind in OTHER_KINDS if kind != source.kind]
        moves += [(move, move) for move in other]
    return moves


def ends_after(
    entry: Entry, move: tuple[SiteShift, SiteShift], n_layers: int
) -> tuple[Site, Site] | None:
    """What is read and written after a move; None outside the model."""
    source, target = move[0].of(entry.source), move[1].of(entry.target)
    if source is None or target is None or max(source.layer, target.layer) >= n_layers:
        return None
    return source, target


def chosen_entries(
    entries: Sequence[Entry], moves: Sequence[tuple[SiteShift, SiteShift]], n_layers: int
) -> list[Entry]:
    """At most two files, of layers that have neighbours where there are such."""

    def possible(entry: Entry) -> int:
        return sum(ends_after(entry, move, n_layers) is not None for move in moves)

    most = max(map(possible, entries))
    if not most:
        raise ValueError(
            f"{entries[0].name} is of {entries[0].source}: the model has {n_layers} layers"
        )
    of = [entry for entry in entries if possible(entry) == most]
    return [of[0], of[-1]] if len(of) > 1 else of


def as_map(
    convention: Convention, what: DictionaryMap, place: Place, entries: Sequence[Entry]
) -> DictionaryMap:
    """The map that says what a convention says, where `what` found these entries."""
    orientation = {**what.orientation, "W_enc": convention.W_enc, "W_dec": convention.W_dec}
    own_scale = convention.scale == what.scale
    found = replace(
        what,
        orientation=orientation,
        scale=convention.scale,
        target_scale=what.target_scale if own_scale else "",
        centre=convention.centre,
        activation=convention.activation,
    )
    if (convention.source, convention.target) == moves_of(entries[0])[0]:
        return found
    ends = (convention.source, convention.target)
    if layer := re.search(r"\{layer([+-]\d+)?\}", what.site):
        later = int(layer[1] or 0)
        site, target = (SiteShift(end.kind, end.layers + later).told() for end in ends)
        return replace(found, site=site, target="" if target == site else target)
    moved = {e.name: (ends[0].of(e.source), ends[1].of(e.target)) for e in entries}
    sites = {k: str(a) if a == b else f"{a}-{b}" for k, (a, b) in moved.items()}
    return replace(found, files="", site="", target="", sites=sites)
