"""The arms of a sweep: every direction to steer along, controls among them, at every strength.

Beside each feature stand another of the same density and a vector of the same length, its encoder
row, and its own decoder row with the sign turned; beside all of them the difference of means of the
example texts, one at each site.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from circuits.edits.continuations import GenerateConfig
from circuits.features.steering_choice import SteeringFeature, SteeringFeatures
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit_file import Edit, Where
from saes.scope.steering import (
    ENCODER,
    FEATURE,
    MEANS,
    Direction,
    SteeringMethod,
    Unit,
    Vector,
    encoder_vector,
    feature_direction,
    means_vector,
    random_direction,
    steering_edit,
    vector_node,
    with_vectors,
)
from saes.scope.steering_score import Goal
from saes.suite import Suite

Form = Literal["text", "chat"]


@dataclass(frozen=True, kw_only=True)
class SteerConfig:
    """What is swept, and how continuations are written."""

    strengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    do: str = "add"
    "an operation with a value, of `saes.operations`"
    during: Where = "all"
    unit: Unit = "max"
    "of the strengths, as in `saes.scope.steering`"
    goal: Goal = "more"
    "of the concept, or less"
    form: Form = "text"
    "of prompts: text to go on from, or a user's turn through the model's chat template"
    instruction: str | None = None
    generation: GenerateConfig = field(default_factory=GenerateConfig)
    seed: int = 0
    "of the random features"

    def __post_init__(self) -> None:
        if not self.strengths:
            raise ValueError("there are no strengths: give at least one")
        if len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"a strength is given twice: {', '.join(map(str, self.strengths))}")
        if self.do == "clamp" and min(self.strengths) < 0:
            raise ValueError(
                f"a clamp holds activations to a size, and {min(self.strengths):g} is none: give "
                "strengths of 0 and more"
            )

    @property
    def negative(self) -> tuple[float, ...]:
        """The strengths with their sign turned, which are a control of features."""
        if self.do == "clamp":
            return ()
        return tuple(-s for s in self.strengths if s and -s not in self.strengths)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One direction at one strength."""

    direction: Direction
    strength: float
    edit: Edit
    groups: tuple[str, ...]


def directions_of(
    suite: Suite, choice: SteeringFeatures, positive: Tensor | None, config: SteerConfig
) -> tuple[list[Direction], Suite]:
    """Every direction with its controls, and the suite that has them all."""
    found: list[Direction] = []
    vectors: dict[Site, list[Vector]] = {}
    taken = [one.node for one in choice.features]
    for one in choice.features:
        own = feature_direction(
            suite, one.node, choice.usage, config.unit, at_token=choice.at_neutral
        )
        seed = config.seed * 1_000_003 + len(found)
        other = random_direction(suite, own, choice.usage, taken=taken, seed=seed)
        found += [own] if other is None else [own, other]
        taken += [] if other is None else [other.node]
        if (vector := encoder_vector(suite, one.node)) is not None:
            site = suite.writes_of(one.node.site)[0]
            found.append(_along(vectors, site, vector, ENCODER, own.norm, one.node))
    norms: dict[Site, list[float]] = {}
    for direction in found:
        if direction.method == FEATURE:
            norms.setdefault(suite.writes_of(direction.node.site)[0], []).append(direction.norm)
    for site, own_norms in norms.items():
        if positive is None or site not in choice.means:
            continue
        if (vector := means_vector(choice.means[site], positive)) is not None:
            norm = sum(own_norms) / len(own_norms)
            found.append(_along(vectors, site, vector, MEANS, norm, None))
    return found, with_vectors(suite, vectors)


def _along(
    vectors: dict[Site, list[Vector]],
    site: Site,
    vector: Vector,
    method: SteeringMethod,
    norm: float,
    of: Node | None,
) -> Direction:
    at = vectors.setdefault(site, [])
    at.append(vector)
    node = vector_node(site, len(at) - 1)
    return Direction(method=method, node=node, unit=norm, norm=norm, of=of)


def arms_of(
    suite: Suite,
    directions: Sequence[Direction],
    features: Sequence[SteeringFeature],
    limits: Mapping[Site, float],
    config: SteerConfig,
) -> list[Arm]:
    """Each direction at each strength; norm outliers, told by the `limits`, stay as they are."""
    by = {one.node: one.by or ("given",) for one in features}
    found: list[Arm] = []
    for direction in directions:
        at = {*suite.reads_of(direction.node.site), *suite.writes_of(direction.node.site)}
        norms = {site: limits[site] for site in at}
        own = direction.method == FEATURE
        for strength in (*config.strengths, *(config.negative if own else ())):
            edit = steering_edit(
                direction, strength, do=config.do, during=config.during, norm_below=norms
            )
            groups = by[direction.node] if own else (direction.method,)
            if strength in config.negative:
                groups = ("negative",)
            arm = Arm(direction=direction, strength=strength, edit=edit, groups=tuple(groups))
            found.append(arm)
    return found
