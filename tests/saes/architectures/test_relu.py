"""ReLU: its gradients, and a coefficient that brings L0 to k."""

import pytest

from tests.saes.architectures.losses import equals_autograd, problem, step


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
def test_gradients_equal_autograd_of_the_plain_formula(skip):
    equals_autograd(*problem("relu", skip=skip), "relu")


def test_the_coefficient_rises_where_too_many_features_are_on():
    weights, x, y = problem("relu")
    l0 = step(weights, x, y, "relu").l0.item()
    few, many, free = (step(weights, x, y, "relu", target=k) for k in (1, 7, None))
    assert 1 < l0 < 7
    assert few.numbers["coefficient"] > 0.7 > many.numbers["coefficient"]
    assert free.numbers["coefficient"] == 0.7
