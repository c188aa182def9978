"""The pool that random controls are drawn from, against sorting by hand."""

import torch

from saes.scope.alike import NEAREST, alike, log_density


def test_the_pool_is_of_the_nearest_that_are_free():
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(60, generator=generator)
    density[:5] = 0
    free = torch.rand(60, generator=generator) > 0.2
    for to in (0, 30):
        measure = log_density(density).tolist()
        by_hand = sorted(
            (i for i in range(60) if free[i]), key=lambda i: (abs(measure[i] - measure[to]), i)
        )
        assert alike(log_density(density), to, free) == by_hand[:NEAREST]
    assert alike(density, 30, torch.zeros(60, dtype=torch.bool)) == []
