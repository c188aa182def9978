"""Nodes to ablate beside the chosen ones: as many, at the same sites and positions, at random.

Two kinds: any that change between clean and patch, and features that are on as strongly. A feature
chosen at every position is answered by another at every position. Where a site has too few at the
position, others of the site stand in; where it has too few at all, there is no control.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest

import torch

from circuits.attribution.node_effects import ERROR
from circuits.attribution.state import BatchState, each
from circuits.discovery.ranking import Ranking
from circuits.edits.ablation import Ablation
from circuits.graph import Node
from saes.features import FeatureSums

DRAWS = 3
NEAREST = 5
"Features of the closest activation that one is drawn from."
Draws = list[tuple[Node, ...]]
SitePosition = tuple[str, int | None]
"A dictionary and a position; None: every one."


def control_nodes(
    edit: Ablation, ranking: Ranking, states: Sequence[BatchState], *, seed: int
) -> dict[str, Draws]:
    """For each kind of control, by name, what each draw ablates (or keeps, as `edit` does)."""
    chosen = edit.ablated if edit.kept is None else edit.inner
    found = {"random nodes at the same sites and positions": _random(edit, chosen, ranking, seed)}
    if edit.kept is None:
        alike = _alike(edit, chosen, states, seed)
        found["features as active at the same sites and positions"] = alike
    return {f"{len(chosen)} {name}": draws for name, draws in found.items() if draws}


def _random(edit: Ablation, chosen: Sequence[Node], ranking: Ranking, seed: int) -> Draws:
    """Draws from the nodes that change."""
    draws: Draws = []
    for draw in range(DRAWS):
        generator, drawn = random.Random(seed * DRAWS + draw), []
        for (site, kind), members in _by_site(chosen).items():
            changed = _changed_at(ranking, site, kind)
            for position in dict.fromkeys(n.position for n in members):
                size = sum(n.position == position for n in members)
                taken = set(drawn)
                left = (
                    [
                        n
                        for n in pool
                        if n not in taken and not (edit.kept is None and edit.touches(n))
                    ]
                    for pool in _pools(changed, position)
                )
                pool = next((pool for pool in left if len(pool) >= size), None)
                if pool is None:
                    return []
                drawn += generator.sample(pool, size)
        draws.append(tuple(drawn))
    return draws


def _changed_at(ranking: Ranking, site: str, kind: str) -> Ranking:
    """The features of a dictionary, or the errors of a site, that change."""
    if site not in ranking.names:
        return ranking[:0]
    of_kind = ranking.feature == ERROR if kind == "error" else ranking.feature >= 0
    return ranking.where(of_kind & (ranking.name == ranking.names.index(site)))


def _pools(changed: Ranking, position: int | None) -> Iterator[list[Node]]:
    """Nodes at the position, then at any; without one, each at every position.

    Nodes are listed when they are asked for: at all positions of a wide dictionary they are many.
    """
    if position is None:
        yield list(dict.fromkeys(node._replace(position=None) for node in changed.nodes()))
        return
    yield changed.where(changed.position == position).nodes()
    yield changed.where(changed.position >= 0).nodes()


def _alike(
    edit: Ablation, chosen: Sequence[Node], states: Sequence[BatchState], seed: int
) -> Draws:
    """Draws from the features whose mean clean activation is nearest; errors have none."""
    if any(node.kind != "feature" for node in chosen):
        return []
    near: list[list[Node]] = []
    groups = _by_site_and_position(chosen)
    activations = _activations(states, list(groups))
    for place, members in groups.items():
        activation = activations[place]
        for node in members:
            others = (
                (abs(value - activation.get(int(node.feature), 0.0)), i)
                for i, value in activation.items()
                if not edit.touches(node._replace(feature=i))
            )
            # Those before it may have drawn as many.
            nearest = nsmallest(NEAREST + len(chosen), others)
            near.append([node._replace(feature=i) for _, i in nearest])
    draws: Draws = []
    for draw in range(DRAWS):
        generator, drawn = random.Random(seed * DRAWS + draw), []
        for others in near:
            free = [n for n in others if n not in drawn][:NEAREST]
            if not free:
                return []
            drawn.append(generator.choice(free))
        draws.append(tuple(drawn))
    return draws


def _by_site(nodes: Sequence[Node]) -> Mapping[tuple[str, str], list[Node]]:
    """Nodes grouped by site and kind (feature or error)."""
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.site, node.kind), []).append(node)
    return groups


def _by_site_and_position(
    nodes: Iterable[Node],
) -> Mapping[SitePosition, list[Node]]:
    """Nodes grouped by site and position."""
    groups: dict[SitePosition, list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.site, node.position), []).append(node)
    return groups


def _activations(
    states: Sequence[BatchState], places: Sequence[SitePosition]
) -> dict[SitePosition, dict[int, float]]:
    """Mean over prompts and tokens of each feature that is on at a place, on the clean prompts.

    Each state is asked for once: those that are not kept are runs of the model.
    """
    sums, tokens = {place: FeatureSums() for place in places}, dict.fromkeys(places, 0)

    def add(state: BatchState) -> None:
        for place in places:
            name, position = place
            at = slice(None) if position is None else slice(position, position + 1)
            f, mask = state.features[name].f[:, at], state.clean.mask[:, at]
            on = (f.value != 0) & mask.unsqueeze(-1)
            column = torch.zeros_like(mask, dtype=torch.long)
            sums[place].add(f.times(f.value.sign()), column, on)
            tokens[place] += int(mask.sum())

    each(states, add)
    found = {}
    for place in places:
        _, feature, total = sums[place].entries()
        means = (total / tokens[place]).tolist()
        found[place] = dict(zip(feature.tolist(), means, strict=True))
    return found
