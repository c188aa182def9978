"""A set of nodes is a set: membership against Python's own, of features and of errors."""

import random

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.nodes import NodeSet

SITES, WIDTH, LENGTH = ("mlp_out.0", "attn_out.2", "clt"), 11, 5


def every(positions):
    """All nodes that there are: a dictionary of several sites has no error of its own name."""
    features = [Node(name, i, p) for name in SITES for i in range(WIDTH) for p in positions]
    return features + [Node(name, "error", p) for name in SITES[:2] for p in positions]


def drawn(seed, size):
    """Nodes at positions and at every one, some of them both ways."""
    return random.Random(seed).sample(every([None, *range(LENGTH)]), size)


def members(some):
    """Which nodes at positions belong to a set, asked of all at once."""
    index = torch.arange(WIDTH).expand(LENGTH, WIDTH)
    at = torch.arange(LENGTH)
    found = {
        Node(name, i, p)
        for name in SITES
        for p, i in some.feature(name, index, at).nonzero().tolist()
    }
    return found | {
        Node(name, "error", p)
        for name in SITES[:2]
        for (p,) in some.error(Site.parse(name), at).nonzero().tolist()
    }


def expected(nodes):
    named = set(nodes)
    return {
        node
        for node in every(range(LENGTH))
        if node in named or node._replace(position=None) in named
    }


@pytest.mark.parametrize("size", [0, 1, 7, 60])
@pytest.mark.parametrize("seed", range(3))
def test_a_set_has_its_nodes_and_its_complement_the_others(seed, size):
    nodes = drawn(seed, size)
    some = NodeSet.of(nodes)
    assert members(some) == expected(nodes)
    assert members(some.complement()) == set(every(range(LENGTH))) - expected(nodes)
    assert members(some.complement().complement()) == expected(nodes)


def test_order_and_repeats_do_not_matter():
    nodes = drawn(0, 30)
    assert members(NodeSet.of([*nodes[::-1], *nodes])) == members(NodeSet.of(nodes))


def test_tokens_and_outputs_belong_to_no_set():
    others = [Node("embed", "token", 1), Node("embed", "token"), Node("logit", " are")]
    assert members(NodeSet.of(others)) == set()


def test_features_are_asked_in_any_order_and_number():
    """As tokens have them: slots in no order, the same feature twice, columns in any row."""
    nodes = drawn(1, 50)
    some, known = NodeSet.of(nodes), expected(nodes)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(WIDTH, (3, 4, 6), generator=generator)
    position = torch.randint(LENGTH, (3, 4), generator=generator)
    for name in SITES:
        found = some.feature(name, index, position)
        for row in range(3):
            for column in range(4):
                p = int(position[row, column])
                for slot, i in enumerate(index[row, column].tolist()):
                    assert bool(found[row, column, slot]) == (Node(name, i, p) in known)


def test_one_position_may_stand_for_all_rows():
    some = NodeSet.of(drawn(1, 50))
    index = torch.randint(WIDTH, (3, 4, 6))
    at = torch.arange(4)
    for name in SITES:
        whole = some.feature(name, index, at.expand(3, 4))
        assert torch.equal(some.feature(name, index, at[None]), whole)


def test_nodes_far_along_a_text_and_in_wide_dictionaries_are_told_apart():
    """Features are numbered with their positions: neither may run into the other."""
    wide, far = 2**33, 2**19
    nodes = [Node("clt", wide, far), Node("clt", 3, 0), Node("clt", 0)]
    index = torch.tensor([[wide, 3, 0, wide - 1]] * 3)
    found = NodeSet.of(nodes).feature("clt", index, torch.tensor([far, 0, 1]))
    assert found.int().tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_a_set_says_where_it_has_anything():
    some = NodeSet.of([Node("mlp_out.0", 3, 1), Node("attn_out.2", "error", 2)])
    assert some.has_features("mlp_out.0")
    assert not some.has_features("attn_out.2")
    assert some.has_error(Site("attn_out", 2))
    assert not some.has_error(Site("mlp_out", 0))
    rest = some.complement()
    assert all(rest.has_features(name) for name in SITES)
    assert rest.has_error(Site("mlp_out", 0))
    nothing = NodeSet.of([])
    assert not any(nothing.has_features(name) for name in SITES)
