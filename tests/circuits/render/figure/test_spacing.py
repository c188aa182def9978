"""Things in a row keep their distances, and stand as near to where they are wanted as they can."""

from itertools import pairwise

import numpy as np
import pytest

from circuits.render.figure.spacing import spaced


def away(places, wanted):
    return float(np.square(np.subtract(places, wanted)).sum())


def kept_apart(places, distances, low, high):
    gaps = np.diff(places) - distances[: len(places) - 1]
    return (gaps >= -1e-9).all() and places[0] >= low - 1e-9 and places[-1] <= high + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_no_other_places_that_keep_the_distances_are_nearer(seed):
    """Against steps from it in random directions, short and long, as the problem is convex."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    wanted, distances = np.sort(rng.uniform(-2, 12, n)), rng.uniform(0.2, 1.5, n)
    places = np.array(spaced(wanted.tolist(), distances.tolist(), 0.0, 10.0))
    assert kept_apart(places, distances, 0.0, 10.0)
    others = 0
    for _ in range(3000):
        other = places + rng.normal(0, rng.choice([0.01, 0.3, 2.0]), n) * (rng.random(n) < 0.6)
        if kept_apart(other, distances, 0.0, 10.0):
            others += 1
            assert away(other, wanted) >= away(places, wanted) - 1e-9
    assert others > 10


def test_what_has_room_stays_and_what_has_not_shares_the_way():
    assert spaced([1.0, 4.0, 9.0], [2.0, 2.0], 0.0, 10.0) == [1.0, 4.0, 9.0]
    assert spaced([5.0, 5.0], [2.0], 0.0, 10.0) == [4.0, 6.0]
    assert spaced([9.0, 9.0, 9.0], [2.0, 2.0], 0.0, 10.0) == [6.0, 8.0, 10.0]
    places = spaced([3.0, 3.0, 3.0, 8.0], [1.0, 1.0, 1.0], 0.0, 10.0)
    assert [b - a >= 1 for a, b in pairwise(places)] == [True] * 3
    assert places[3] == 8.0
    assert spaced([], [], 0.0, 1.0) == []


def test_too_short_a_row_says_what_it_has_and_what_it_takes():
    with pytest.raises(ValueError, match=r"no room from 0\.0 to 3\.0 for 4\.0"):
        spaced([1.0, 2.0, 3.0], [2.0, 2.0], 0.0, 3.0)
