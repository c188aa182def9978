"""Arrangements are all the ways to take some in order."""

from circuits.tasks.dealing import Arrangements


def test_arrangements_are_all_the_ways_to_take_some_in_order():
    taken = list(Arrangements("abcd", 3))
    assert len(taken) == len(set(taken)) == 24
    assert all(len(set(one)) == 3 for one in taken)
