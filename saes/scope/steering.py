"""What a model is steered along, how far, and as which edit.

    add     h' = h + alpha d          d the decoder row of a feature
    set     its activation becomes alpha
    scale   its activation is multiplied by the strength
    clamp   its activation is held between -|alpha| and |alpha|: 0 turns it off

alpha is the strength times the feature's own largest activation (max), the largest that any feature
of its dictionary has at the last token of a neutral prompt (token), or 1 (activation). Controls go
as far: at one strength every direction of a row writes a vector of the same length, so that what is
added is as long; what is set, scaled or clamped moves from where it is, by less or not at all where
it was off. Directions
that no dictionary has (a difference of means, an encoder row) are features of one more dictionary,
whose activation is the coordinate along the direction; so each of these is an `Edit`, done in
generation as any other.

    difference of means   u = (m1 - m0) / |m1 - m0|, coordinate (x - m0) . u
    encoder direction     u = W_enc / |W_enc|, coordinate (x . W_enc + b_enc) / |W_enc|

Source: h + alpha d, arXiv:2605.11887; features set to multiples of their maximum, Templeton et al.
2024, Scaling Monosemanticity; the largest of any feature as the unit, arXiv:2505.20063, which takes
that of the token being written, 0.4 to 8 times; difference of means as a baseline, arXiv:2501.17148
(AxBench).

Axes: `features` of one dictionary, `directions` at one site.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.edit_file import Edit, Operation, Value, Where
from saes.operations import VALUED, kind_of
from saes.scope.alike import NEAREST, alike, log_density
from saes.scope.usage import Usage
from saes.suite import Suite

Unit = Literal["max", "token", "activation"]
SteeringMethod = Literal["feature", "random feature", "encoder direction", "difference of means"]
FEATURE: SteeringMethod = "feature"
RANDOM: SteeringMethod = "random feature"
ENCODER: SteeringMethod = "encoder direction"
MEANS: SteeringMethod = "difference of means"


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Something to steer along."""

    method: SteeringMethod
    node: Node
    "in the suite that has directions too"
    unit: float
    "the activation of the node that strength 1 stands for"
    norm: float
    "length of the vector that this adds"
    of: Node | None = None
    "the feature that it is a control of"

    @property
    def name(self) -> str:
        """What it is called in a table: SITE/INDEX of a feature."""
        if self.method in (FEATURE, RANDOM):
            return f"{self.node.site}/{self.node.feature}"
        at = self.node.site.removesuffix(SUFFIX)
        return f"{at}" if self.of is None else f"{self.of.site}/{self.of.feature}"


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A direction that no dictionary has."""

    u: Float[Tensor, " d_model"]
    "of length 1"
    offset: float
    "added to x . u: where the coordinate is 0"


SUFFIX = " directions"


def feature_direction(
    suite: Suite,
    node: Node,
    usage: Usage,
    unit: Unit = "max",
    *,
    at_token: Mapping[str, float] | None = None,
) -> Direction:
    """A feature's own decoder row; `at_token` is what the unit `token` is of each dictionary.

    Raises `ValueError` for a feature that is never on, whose maximum says nothing, and where no
    feature is on at the token.
    """
    units = {"max": usage.largest_of(node), "token": (at_token or {}).get(node.site, 0.0)}
    largest = units.get(unit, 1.0)
    if largest == 0 and unit == "token":
        raise ValueError(
            f"no feature of {node.site} is on at the neutral prompt's last token, so it has no "
            "unit there: take --unit max"
        )
    if largest == 0:
        raise ValueError(
            f"{node} is on at no token of the text, so its maximum is no unit: give --text that "
            "turns it on, or --unit activation"
        )
    return Direction(
        method=FEATURE, node=node, unit=largest, norm=abs(largest) * _length(suite, node)
    )


def random_direction(
    suite: Suite,
    own: Direction,
    usage: Usage,
    *,
    taken: Sequence[Node] = (),
    seed: int = 0,
    nearest: int = NEAREST,
) -> Direction | None:
    """Another feature of the same dictionary, about as often on, moved as far.

    One of the `nearest` in the logarithm of the share of tokens at which they are on.
    None where no other feature of the dictionary is ever on.
    """
    density = usage.density[own.node.site]
    free = density > 0
    free[[int(n.feature) for n in (own.node, *taken) if n.site == own.node.site]] = False
    near = alike(log_density(density), int(own.node.feature), free, nearest=nearest)
    if not near:
        return None
    node = Node(own.node.site, random.Random(seed).choice(near))
    unit = own.norm / max(_length(suite, node), 1e-12)
    return Direction(method=RANDOM, node=node, unit=unit, norm=own.norm, of=own.node)


def _length(suite: Suite, node: Node) -> float:
    return float(suite[node.site].W_dec[int(node.feature)].float().norm())


def means_vector(
    x: Float[Tensor, "texts d"], positive: Float[Tensor, " texts"] | Tensor
) -> Vector | None:
    """From the mean of the negative texts to that of the positive ones; None where they are one."""
    x = x.double()
    zero, one = x[~positive].mean(0), x[positive].mean(0)
    length = (one - zero).norm()
    if length == 0:
        return None
    u = (one - zero) / length
    return Vector(u=u, offset=-float(zero @ u))


def encoder_vector(suite: Suite, node: Node) -> Vector | None:
    """What a feature reads; None where its dictionary writes elsewhere than it reads."""
    if suite.reads_of(node.site) != suite.writes_of(node.site):
        return None
    dictionary = suite[node.site]
    row = dictionary.W_enc[int(node.feature)].detach().double().cpu()
    length = float(row.norm())
    if length == 0 or len(suite.writes_of(node.site)) > 1:
        return None
    return Vector(u=row / length, offset=float(dictionary.b_enc[int(node.feature)]) / length)


def with_vectors(suite: Suite, vectors: Mapping[Site, Sequence[Vector]]) -> Suite:
    """The suite with one more dictionary at each site, of directions; `vector_node` calls them."""
    made = {}
    for site, of_site in vectors.items():
        u = torch.stack([vector.u for vector in of_site]).float()
        spec = DictionarySpec(
            source=site,
            target=site,
            called=f"{site}{SUFFIX}",
            architecture="topk",
            k=len(of_site),
            signed=True,
        )
        weights = {
            "W_enc": u,
            "b_enc": torch.tensor([vector.offset for vector in of_site]),
            "W_dec": u.clone(),
            "b_dec": torch.zeros(u.shape[1]),
        }
        made[spec.called] = SparseDictionary(spec, weights)
    return suite.exchanging([], made) if made else suite


def vector_node(site: Site, place: int) -> Node:
    """What the direction at a place of its site is called in `with_vectors`."""
    return Node(f"{site}{SUFFIX}", place)


def steering_edit(
    direction: Direction,
    strength: float,
    *,
    do: str = "add",
    during: Where = "all",
    norm_below: Mapping[Site, float] | None = None,
) -> Edit:
    """Steering along a direction as an edit; norm outliers stay as they are where limits say so."""
    alpha = strength * direction.unit
    if do not in VALUED:
        raise ValueError(f"cannot steer by {do!r}: expected one of {', '.join(VALUED)}")
    kind = kind_of(do)
    value: Value = strength if kind.linear else alpha  # a factor has no unit
    if kind.takes == "(low, high)":
        value = -abs(alpha), abs(alpha)
    operation = Operation(
        node=direction.node,
        do=do,
        value=value,
        positions=during,
        norm_below=tuple(sorted((norm_below or {}).items())),
    )
    return Edit(operations=(operation,))
