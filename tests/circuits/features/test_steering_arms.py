"""Strengths of a sweep that cannot be."""

import pytest

from circuits.features.steering_arms import SteerConfig


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strengths": ()}, "there are no strengths"),
        ({"strengths": (1.0, 1.0)}, "a strength is given twice"),
        ({"strengths": (-1.0,), "do": "clamp"}, "a clamp holds activations to a size"),
    ],
)
def test_strengths_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        SteerConfig(**options)
