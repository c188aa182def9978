"""Settings of a training that cannot be."""

import pytest

from saes.training.loop import TrainConfig


@pytest.mark.parametrize(
    "number",
    [
        {"width": 0},
        {"tokens": -1},
        {"dead_after": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"gradient_norm": 0.0},
    ],
)
def test_a_number_out_of_range_is_named(number):
    ((name, value),) = number.items()
    with pytest.raises(ValueError, match=f"{name} is {value}: expected a positive number"):
        TrainConfig(**number)


def test_warm_up_and_decay_fit_into_the_steps():
    with pytest.raises(ValueError, match=r"warm-up and decay take 1\.1 of the steps: at most 1"):
        TrainConfig(warmup=0.5, decay=0.6)


@pytest.mark.parametrize("prefixes", [(3, 2), (0, 5), (4, 4), (21,)])
def test_prefixes_rise_within_the_width(prefixes):
    with pytest.raises(ValueError, match="expected rising widths from 1 to 20"):
        TrainConfig(width=20, prefixes=prefixes)


def test_an_average_is_a_decay():
    with pytest.raises(ValueError, match=r"average is 1\.0: expected a decay"):
        TrainConfig(average=1.0)


def test_the_default_learning_rate_falls_with_the_root_of_the_width():
    rates = [TrainConfig(width=width).peak_rate for width in (16384, 4096, 1024)]
    assert rates == pytest.approx([2e-4, 4e-4, 8e-4])
