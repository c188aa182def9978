"""How each source of a replaced prompt changes on the way to its reference, and what that writes.

feature  (f' - f) W_dec_i, at every MLP that its transcoder writes
error    e' - e
token    the patch's embedding less the clean one's

to the patch prompt's values, or to zero. A feature that is off is no source and does not change.

Axes: as in `transcoders.sources`; `rows` of a pass, the prompt as it is first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_qwen.sites import Site
from saes.nodes import FEATURE_BITS
from transcoders.frozen.model import EMBED
from transcoders.replacement import ReplacementModel, Totals
from transcoders.sources import ERROR, FEATURE, TOKEN, written_rows


@dataclass(frozen=True)
class NodeChanges:
    """How the sources of one prompt change."""

    model: ReplacementModel
    features: Float[Tensor, " sources"]
    "f' - f of features, 0 of others"
    vectors: dict[Site, Float[Tensor, "pos d_model"]]
    "of the error at every `mlp_out.L`, of the tokens at `embed`"

    def effects(self, totals: Totals) -> Float[Tensor, " sources"]:
        """What changing each source does by all linear paths."""
        sources, effect = self.model.sources, self.features * totals.slope
        for site, vectors in self.vectors.items():
            of = self._at(site)
            effect[of] = (vectors * totals.gradient[site]).sum(-1)[sources.position[of]]
        return effect + 0.0  # what does not change has no sign

    def _at(self, site: Site) -> Tensor:
        sources = self.model.sources
        if site == EMBED:
            return sources.kind == TOKEN
        return (sources.kind == ERROR) & (sources.layer == site.layer)

    def written(
        self, rows: Sequence[Int[Tensor, " some"]]
    ) -> dict[Site, Float[Tensor, "rows pos d_model"]]:
        """What is added to each site's tensor where the sources of a row change; row 0 has none."""
        like, found = self.model.recorded.embed, {}
        which = torch.cat(list(rows))
        row = torch.cat([torch.full_like(r, i) for i, r in enumerate(rows, 1)])

        def add(site: Site, of: Tensor, vectors: Tensor) -> None:
            if site not in found:
                found[site] = like.new_zeros(1 + len(rows), *like.shape)
            at = row[of], self.model.sources.position[which[of]]
            found[site].index_put_(at, vectors, accumulate=True)

        sources = self.model.sources
        for number in sources.dictionary[which].unique().tolist():
            of = sources.dictionary[which] == number
            if number < 0:
                continue
            dictionary, some = self.model.dictionaries[number], which[of]
            for site in dictionary.writes:
                W_dec = written_rows(dictionary, site)
                add(site, of, W_dec[sources.feature[some]] * self.features[some, None])
        for site, vectors in self.vectors.items():
            of = self._at(site)[which]
            if of.any():
                add(site, of, vectors[sources.position[which[of]]])
        return found


def changes_to(model: ReplacementModel, patched: ReplacementModel | None) -> NodeChanges:
    """To the values in the patch prompt, or to zero where there is none."""
    sources, embed = model.sources, model.recorded.embed
    there, vectors = torch.zeros_like(sources.activation), {EMBED: -embed}
    if patched is not None:
        there = _activations_there(model, patched)
        vectors[EMBED] = patched.recorded.embed - embed
    for layer, written in enumerate(sources.layers):
        to = 0.0 if patched is None else patched.sources.layers[layer].error
        vectors[Site("mlp_out", layer)] = to - written.error
    of_feature = sources.kind == FEATURE
    return NodeChanges(model, torch.where(of_feature, there - sources.activation, 0.0), vectors)


def _activations_there(
    model: ReplacementModel, patched: ReplacementModel
) -> Float[Tensor, " sources"]:
    """The activations that a prompt's active features have in its patch, 0 where they are off."""
    keys = []
    for sources in (model.sources, patched.sources):
        which = (sources.dictionary * model.n_tokens + sources.position) << FEATURE_BITS
        keys.append(torch.where(sources.kind == FEATURE, which + sources.feature, -1))
    known, order = keys[1].sort()
    place = torch.searchsorted(known, keys[0]).clamp(max=len(known) - 1)
    found = (known[place] == keys[0]) & (keys[0] >= 0)
    return torch.where(found, patched.sources.activation[order[place]], 0.0)
