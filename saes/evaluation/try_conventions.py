"""Which conventions fit a dictionary: its files read in every usual way, judged on real text.

    FVU = sum |y - y_hat|^2 / sum |y - mean(y)|^2           norm outliers left out

A convention that is wrong shows: the FVU is over 1, worse than the site's mean. What is tried is
every combination of

    site            the layer before and after, other tensors of the layer (`resid_pre.n` is
                    `resid_post.n-1`)
    scale           none, by the mean norm of these activations, by numbers in the file that are
                    called so, and by each token's own norm
    centre          nothing, b_dec, any other vector of the file
    negative ones   kept or dropped, of the k largest
    orientation     where the matrices are square

first on few tokens, and what is best, or differs from it in one term, on all. A dictionary fits
where the best FVU is under nine tenths of that of an untrained dictionary of its shape, for which
the best way was chosen too, and of 1. What comes within a twentieth of the best, or within the
interval of the difference, is as good: the text does not tell them apart.

Intervals are 95 % bootstrap percentiles over blocks of text, the same blocks for both of a pair.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.precision import our_precision
from hooked_qwen.sites import Site
from saes.evaluation.bootstrap import interval, resamples
from saes.evaluation.convention_files import Here, TriedFile
from saes.evaluation.conventions import (
    CLOSE,
    SAME,
    Convention,
    SiteShift,
    Trial,
    Tried,
    chosen_entries,
    ends_after,
    moves_of,
)
from saes.evaluation.splice import unpadded
from saes.formats.mapped import BY_TOKEN, MEASURED, DictionaryMap
from saes.formats.place import Entry

FINALISTS = 8
FIRST_BLOCKS = 2
Activations = Mapping[Site, Float[Tensor, "blocks pos d"]]
CountReport = Callable[[int, int], None]


@torch.no_grad()
def try_conventions(
    model: TransformerBridge,
    what: DictionaryMap,
    entries: Sequence[Entry],
    blocks: Int[Tensor, "blocks pos"],
    *,
    seed: int = 0,
    report: CountReport = lambda done, total: None,
) -> Trial:
    """Read some of the files in every usual way, on the text of `blocks`.

    `seed` draws the untrained dictionary. Raises `ValueError` where a file's tensors are of
    another width than the model's.
    """
    own = moves_of(entries[0])
    chosen = chosen_entries(entries, own, len(model.blocks))
    search = _Search(model, what, chosen, blocks, report)
    every = search.conventions(own)
    first = _fvus(search.tally(every, FIRST_BLOCKS))
    given = search.files[0].given(own[0])
    given = given if given in first else None
    order = _ordered(first, given or every[0])
    finals = [c for c in every if len(c.differs(order[0])) <= 1 or c == given]
    finals = list(dict.fromkeys([*order[:FINALISTS], *finals]))
    tried = _compared(search.tally(finals, len(blocks)), given or order[0])
    best = tried[0].convention
    here = [c for c in every if (c.source, c.target) == (best.source, best.target)]
    random = _fvus(search.tally(here, FIRST_BLOCKS, seed))
    least = min(random, key=lambda c: random[c])
    return Trial(
        given=given,
        tried=tuple(tried),
        untrained=_fvus(search.tally([least], len(blocks), seed))[least],
        ways=len(every),
        files=tuple(entry.name for entry in chosen),
        tokens=blocks.numel(),
    )


class _Search:
    """Some files, and the activations at every site that they are tried at."""

    def __init__(
        self,
        model: TransformerBridge,
        what: DictionaryMap,
        chosen: Sequence[Entry],
        blocks: Int[Tensor, "blocks pos"],
        report: CountReport,
    ) -> None:
        self.files = [TriedFile(what, what.opened(entry)) for entry in chosen]
        self.n_layers, self.report = len(model.blocks), report
        ends = (self._ends(file, move) for file in self.files for move in moves_of(chosen[0]))
        self.seen = activations(model, blocks, {site for pair in ends if pair for site in pair})

    def conventions(self, moves: Sequence[tuple[SiteShift, SiteShift]]) -> list[Convention]:
        """Every combination that the model has the sites for."""
        there = [move for move in moves if all(self._ends(file, move) for file in self.files)]
        first = self._ends(self.files[0], there[0]) or ()
        options = self.files[0].options(*(self.seen[site].shape[-1] for site in first))
        return [Convention(*move, *rest) for move in there for rest in product(*options)]

    def tally(
        self, conventions: Sequence[Convention], until: int, control: int | None = None
    ) -> "_SquaredErrors":
        """What each leaves on the first blocks, of the files or of untrained dictionaries."""
        found: _SquaredErrors = {}
        moves = list(dict.fromkeys((c.source, c.target) for c in conventions))
        for step, (file, move) in enumerate(product(self.files, moves)):
            self.report(step, len(self.files) * len(moves))
            here = Here.of(*(self.seen[site][:until] for site in self._ends(file, move) or ()))
            of = [c for c in conventions if (c.source, c.target) == move]
            for convention, sums in file.sums(here, of, control):
                found.setdefault(convention, []).append(sums)
        self.report(len(self.files) * len(moves), len(self.files) * len(moves))
        return found

    def _ends(self, file: TriedFile, move: tuple[SiteShift, SiteShift]) -> tuple[Site, Site] | None:
        return ends_after(file.file.entry, move, self.n_layers)


_SquaredErrors = dict[Convention, list[tuple[Tensor, Tensor]]]
"Of each file the squared errors and the spread, block by block."


@torch.no_grad()
def activations(
    model: TransformerBridge, blocks: Int[Tensor, "blocks pos"], sites: set[Site]
) -> Activations:
    """The tensors at some sites, of all blocks, in the precision that we compute in."""
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for tokens in blocks.split(4):
        with capture(model, sites) as seen:
            run_through(model, unpadded(tokens), max(site.layer for site in sites))
        for site in sites:
            found[site].append(seen[site].to(our_precision(model)))
    return {site: torch.cat(parts) for site, parts in found.items()}


def _fvus(found: _SquaredErrors) -> dict[Convention, float]:
    """The mean over files of error over spread; the device is waited for once."""
    means = [torch.stack([e.sum() / s.sum() for e, s in sums]).mean() for sums in found.values()]
    return dict(zip(found, torch.stack(means).tolist(), strict=True))


def _ordered(fvus: Mapping[Convention, float], given: Convention) -> list[Convention]:
    """Best first; of equals what is nearest to the map.

    Scales that the files or the map name come first, unless another is clearly better: one that is
    measured on this text is never quite the one that was trained with, and one by token is refused.
    """

    def rank(convention: Convention) -> tuple[int, int]:
        named = convention.scale not in (*MEASURED, *BY_TOKEN) or convention.scale == given.scale
        factor = 1.0 if named else CLOSE
        return round(factor * fvus[convention] / SAME), len(convention.differs(given))

    return sorted(fvus, key=rank)


def _compared(found: _SquaredErrors, given: Convention) -> list[Tried]:
    """All that was tried on all of the text, best first."""
    blocks = len(next(iter(found.values()))[0][0])
    shares = resamples(blocks)
    draws = {
        c: torch.stack([(shares @ e.cpu()) / (shares @ s.cpu()) for e, s in sums]).mean(0)
        for c, sums in found.items()
    }
    fvus = _fvus(found)
    order = _ordered(fvus, given)
    best = order[0]
    return [
        Tried(
            convention=c,
            fvu=fvus[c],
            fvu_interval=interval(draws[c]),
            worse=fvus[c] - fvus[best],
            worse_interval=interval(draws[c] - draws[best]),
        )
        for c in order
    ]
