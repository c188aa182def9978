"""Lanes of edges: in order, in their room, apart."""

from itertools import pairwise

from circuits.render.figure.routes import lanes


def test_lanes_keep_their_order_their_room_and_their_distance():
    found = lanes([0.5, 0.5, 0.5, 0.9], (0.0, 1.0), 0.1)
    assert found == sorted(found)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(found))
    crowded = lanes([5.0] * 30, (0.0, 1.0), 0.1)
    assert crowded[0] >= 0
    assert crowded[-1] <= 1
    assert len(set(crowded)) == 30
