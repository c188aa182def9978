"""Columns of a sheet: all tokens are told of once, neighbours without nodes in one column."""

from itertools import pairwise

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.figure.columns import HEADS, columns_of
from circuits.render.figure.ink import measure
from circuits.render.figure.sheet import TEXT
from circuits.render.layout import layout

WIDE, NARROW = HEADS
TOKENS = ["The", " keys", " to", " the", " old", " cabinet"]


def places(tokens=TOKENS, position=0):
    graph = nx.DiGraph(columns=list(tokens))
    graph.add_node(Node("mlp_out.0", 1, position), effect=1.0, kind="feature", label="")
    return layout(graph)


@pytest.mark.parametrize("room", HEADS)
@pytest.mark.parametrize("used", [set(), {0}, {5}, {1, 3}, {0, 2, 4}, set(range(6))])
def test_every_column_stands_alone_or_is_folded_with_its_neighbours(used, room):
    found = columns_of(places(), used, room)
    firsts = [column.index for column in found]
    ends = [*firsts[1:], len(TOKENS)]
    assert firsts[0] == 0
    for column, end in zip(found, ends, strict=True):
        covered = set(range(column.index, end))
        if column.folded:
            assert not covered & used
            of_one = ("…",)
            assert column.lines == (
                (f"… {len(covered)}", "tokens …") if len(covered) > 1 else of_one
            )
        else:
            assert covered == {column.index}
    assert used <= {column.index for column in found if not column.folded}
    for column, after in pairwise(found):
        assert not (column.folded and after.folded)


def test_one_token_without_nodes_is_folded_where_there_is_less_room():
    used = {0, 1, 2, 4, 5}
    assert [c.lines for c in columns_of(places(), used, WIDE) if c.folded] == []
    (alone,) = [c for c in columns_of(places(), used, NARROW) if c.folded]
    assert (alone.index, alone.lines) == (3, ("…",))


def test_a_token_is_as_wide_as_its_room_at_most():
    tokens = [" incomprehensibilities", " a"]
    for room in HEADS:
        first, second = columns_of(places(tokens), {0, 1}, room)
        assert all(measure(line, TEXT) <= room for line in first.lines)
        assert len(first.lines) <= 2
        assert second.width < first.width


def test_positions_that_are_summed_have_one_column():
    (column,) = columns_of(places(position=None), set(), NARROW)
    assert (column.index, column.folded) == (0, False)
