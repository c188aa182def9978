"""What an edit is held against: as much done at the same sites, to something else.

Four kinds, each drawn several times: as many random features of the same dictionaries, of those
that fire; features that are about as active and whose decoder rows are about as long; as many
coordinates of the tensors that the features write ("neurons"); and the same move at every token,
but in a random direction. All else of the edit stays: what is done, where and when, and what is
done to error terms, which neurons have none of.

Axes: `features` those of one dictionary.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.edited_model import TOKENS_AT_ONCE, Edited
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import Activation, capture
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.edit import Redirect
from saes.edit_file import Edit, Operation
from saes.evaluation.baselines import neurons
from saes.evaluation.splice import unpadded
from saes.features import FeatureSums
from saes.suite import Suite

NEAREST = 5
"Features of the closest activation and norm that one is drawn from."
RANDOM = "random features"
ALIKE = "features of like activation and decoder norm"
NEURONS = "neurons"
DIRECTION = "a random direction of the same norm"
Swap = Mapping[tuple[str, int], tuple[str, int]]
"For each feature, by dictionary and number, what takes its place."


@dataclass(frozen=True, kw_only=True)
class MeanActivations:
    """How active features and coordinates are over a text: their means, on the CPU."""

    features: Mapping[str, Float[Tensor, " features"]]
    coordinates: Mapping[Site, Float[Tensor, " d_model"]]


@torch.no_grad()
def activity_over(
    model: TransformerBridge, suite: Suite, names: Sequence[str], blocks: Int[Tensor, "blocks pos"]
) -> MeanActivations:
    """Means over the tokens of a text, of some dictionaries' features and what these write."""
    sums = {name: FeatureSums() for name in names}
    written = {site for name in names for site in suite.writes_of(name)}
    sites = written | {site for name in names for site in suite.reads_of(name)}
    totals: dict[Site, Tensor] = {}
    for some in blocks.split(max(1, TOKENS_AT_ONCE // blocks.shape[1])):
        with capture(model, sites) as seen:
            last_logits(model, unpadded(some))
        for name in names:
            f = suite[name].encode(suite.read(name, seen))
            sums[name].add(f, torch.zeros_like(f.index[..., 0]), f.value != 0)
        for site in written:
            total = seen[site].double().sum((0, 1)).cpu()
            totals[site] = totals.get(site, 0) + total
    found = {}
    for name in names:
        _, feature, total = sums[name].entries()
        found[name] = torch.zeros(suite[name].n_features, dtype=torch.float64)
        found[name][feature.cpu()] = total.double().cpu() / blocks.numel()
    return MeanActivations(
        features=found, coordinates={site: t / blocks.numel() for site, t in totals.items()}
    )


def controls_of(
    edited: Edited, activity: MeanActivations, *, draws: int, seed: int = 0
) -> dict[str, list[Edited]]:
    """For each kind of control, by name, the edits that it draws; none where there is no room.

    Where an edit is of every feature of a dictionary but some, as many others are left out.
    """
    edit, suite = edited.edit, edited.suite
    chosen = features_of(edit)
    found: dict[str, list[Edited]] = {}

    def add(name: str, make: Callable[[random.Random], Edited | None]) -> None:
        made = [make(random.Random(seed * draws + draw)) for draw in range(draws)]
        if None not in made:
            found[name] = [one for one in made if one is not None]

    def swapped(draw: Callable[..., Swap | None], rng: random.Random) -> Edited | None:
        swap = draw(suite, chosen, activity, rng)
        if not swap:
            return None
        return replace(edited, edit=_swapped(edit, swap, activity), must_fire=False)

    add(RANDOM, lambda rng: swapped(_random, rng))
    add(ALIKE, lambda rng: swapped(_alike, rng))
    if not any(op.when for op in edit.operations):
        add(NEURONS, lambda rng: _neurons(edited, chosen, activity, rng))
    add(
        DIRECTION,
        lambda rng: replace(edited, redirect=_direction(rng.getrandbits(48)), must_fire=False),
    )
    return found


def features_of(edit: Edit) -> dict[str, tuple[int, ...]]:
    """The features that an edit names one by one, of each dictionary; left-out ones too."""
    found: dict[str, dict[int, None]] = {}
    for op in edit.operations:
        if op.node.kind != "feature":
            continue
        of_name = found.setdefault(op.node.site, {})
        named = [n for n in (op.node, *op.besides) if n.kind == "feature" and n.feature != EVERY]
        of_name.update(dict.fromkeys(int(n.feature) for n in named))
    return {name: tuple(features) for name, features in found.items()}


def _random(
    suite: Suite,
    chosen: Mapping[str, tuple[int, ...]],
    activity: MeanActivations,
    rng: random.Random,
) -> Swap | None:
    """As many others that fire; others that do not, where a dictionary has too few."""
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for name, features in chosen.items():
        pool = _free(activity.features[name], features)
        if len(pool) < len(features):
            return None
        drawn = rng.sample(pool, len(features))
        found |= {(name, i): (name, j) for i, j in zip(features, drawn, strict=True)}
    return found


def _free(activity: Float[Tensor, " features"], taken: Sequence[int]) -> list[int]:
    """Features that may be drawn: those that fire, or all where these are too few."""
    free = torch.ones(len(activity), dtype=torch.bool)
    free[list(taken)] = False
    firing = (free & (activity != 0)).nonzero()[:, 0].tolist()
    return firing if len(firing) >= len(taken) else free.nonzero()[:, 0].tolist()


def _alike(
    suite: Suite,
    chosen: Mapping[str, tuple[int, ...]],
    activity: MeanActivations,
    rng: random.Random,
) -> Swap | None:
    """For each one of the nearest in mean activation and decoder norm, on a scale of logarithms."""
    found: dict[tuple[str, int], tuple[str, int]] = {}
    for name, features in chosen.items():
        mean = activity.features[name].abs()
        on = mean[mean > 0]
        if not len(on):
            return None
        norms = suite[name].W_dec.double().norm(dim=1).cpu()
        scale = torch.stack([mean.clamp(min=float(on.min())).log(), norms.clamp(min=1e-9).log()])
        scale = scale / scale[:, mean > 0].std(1, keepdim=True).nan_to_num(1.0).clamp(min=1e-6)
        free = torch.tensor(_free(activity.features[name], features))
        for i in features:
            far = (scale[:, free] - scale[:, [i]]).pow(2).sum(0)
            nearest = [int(free[at]) for at in far.argsort(stable=True)[: NEAREST + len(found)]]
            left = [j for j in nearest if (name, j) not in found.values()][:NEAREST]
            if not left:
                return None
            found[name, i] = (name, rng.choice(left))
    return found


def _neurons(
    edited: Edited,
    chosen: Mapping[str, tuple[int, ...]],
    activity: MeanActivations,
    rng: random.Random,
) -> Edited | None:
    """As many coordinates of every tensor that the features write."""
    suite = edited.suite
    operations: list[Operation] = []
    means: dict[Node, Any] = {}
    swaps: dict[Site, dict[tuple[str, int], tuple[str, int]]] = {}
    for name, features in chosen.items():
        for site in suite.writes_of(name):
            mean = activity.coordinates[site]
            of_site = swaps.setdefault(site, {})
            taken = {j for _, j in of_site.values()}
            pool = [j for j in range(len(mean)) if j not in taken]
            if len(pool) < len(features):
                return None
            drawn = rng.sample(pool, len(features))
            of_site |= {(name, i): (str(site), j) for i, j in zip(features, drawn, strict=True)}
    for op in edited.edit.operations:
        if op.node.kind != "feature":
            continue
        for site in suite.writes_of(op.node.site):
            node, besides = _placed(op.node, op.besides, swaps[site], str(site))
            operations.append(replace(op, node=node, besides=besides))
            mean = activity.coordinates[site]
            means[node] = mean if node.feature == EVERY else float(mean[int(node.feature)])
    if not operations:
        return None
    edit = Edit(operations=tuple(operations), means=means)
    return replace(edited, suite=neurons(suite), edit=edit, must_fire=False)


def _placed(
    node: Node, besides: Sequence[Node], swap: Swap, name: str
) -> tuple[Node, tuple[Node, ...]]:
    """The nodes that stand where an operation's did."""

    def other(n: Node) -> Node:
        if n.kind != "feature" or n.feature == EVERY:
            return n._replace(site=name) if n.kind == "feature" else n
        site, feature = swap[n.site, int(n.feature)]
        return n._replace(site=site, feature=feature)

    return other(node), tuple(other(n) for n in besides)


def _swapped(edit: Edit, swap: Swap, activity: MeanActivations) -> Edit:
    """The same done to other features; a mean is then that over the text."""
    operations, means = [], dict(edit.means)
    for op in edit.operations:
        node, besides = _placed(op.node, op.besides, swap, op.node.site)
        operations.append(replace(op, node=node, besides=besides))
        if op.needs == "mean" and node != op.node:
            means[node] = float(activity.features[node.site][int(node.feature)])
    return replace(edit, operations=tuple(operations), means=means)


def _direction(seed: int) -> Redirect:
    """Moves of the same norm at every token, all of a site in one random direction."""
    directions: dict[Site, Tensor] = {}

    def redirect(site: Site, move: Activation) -> Activation:
        if site not in directions:
            generator = torch.Generator().manual_seed(seed + hash_of_site(site))
            unit = torch.randn(move.shape[-1], generator=generator, dtype=torch.float64)
            directions[site] = (unit / unit.norm()).to(move)
        return move.norm(dim=-1, keepdim=True) * directions[site]

    return redirect


def hash_of_site(site: Site) -> int:
    """A number that is the same in every process."""
    return sum(256**i * byte for i, byte in enumerate(str(site).encode()[-5:]))
