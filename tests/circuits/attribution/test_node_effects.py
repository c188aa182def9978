"""Effects as arrays say what a list of nodes and numbers would."""

import random

import pytest
import torch

from circuits.attribution.node_effects import EffectSums, NodeEffects, keys
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.nodes import NodeSet

NAMES = ("embed", "attn_out.0", "mlp_out.0", "clt", "resid_post.1")
WIDTH, LENGTH = 9, 4


def drawn(seed, n, positions=(None, *range(LENGTH))):
    """Pairs of nodes of every kind and effects of both signs; no node twice."""
    rng = random.Random(seed)
    nodes = [Node("embed", "token", p) for p in positions]
    nodes += [Node(name, i, p) for name in NAMES[1:] for i in range(WIDTH) for p in positions]
    nodes += [Node(name, "error", p) for name in NAMES[1:] if name != "clt" for p in positions]
    return [(node, rng.gauss(0, 1)) for node in rng.sample(nodes, n)]


def listed(pairs):
    return NodeEffects.listed(NAMES, pairs)


def test_nodes_come_back_as_they_went_in():
    pairs = drawn(0, 80)
    effects = listed(pairs)
    assert list(effects) == pairs
    assert effects.nodes() == [node for node, _ in pairs]
    assert len(effects) == 80
    assert dict(effects) == dict(pairs)
    assert list(listed([])) == []


def test_nodes_far_along_a_text_and_in_wide_dictionaries_come_back():
    nodes = [Node("clt", 2**33, 2**19), Node("clt", 0), Node("resid_post.1", "error", 2**19)]
    assert listed([(node, 1.0) for node in nodes]).nodes() == nodes


def test_arrays_of_one_site_are_summed_node_by_node():
    position, feature = torch.tensor([0, 3, -1, 2, 3]), torch.tensor([4, 0, 8, 4, 0])
    effect = torch.tensor([0.5, -1.0, 2.0, 0.0, -0.25], dtype=torch.float64)
    key = keys(NAMES, "mlp_out.0", position, feature)
    assert list(NodeEffects.summed(NAMES, key, effect)) == [
        (Node("mlp_out.0", 8), 2.0),
        (Node("mlp_out.0", 4, 0), 0.5),
        (Node("mlp_out.0", 4, 2), 0.0),
        (Node("mlp_out.0", 0, 3), -1.25),
    ]


def test_one_node_has_a_number_and_several_are_effects():
    pairs = drawn(1, 30)
    effects = listed(pairs)
    assert effects[7] == pairs[7]
    assert effects[-1] == pairs[-1]
    assert list(effects[3:9]) == pairs[3:9]
    assert list(effects[[5, 2, 2]]) == [pairs[5], pairs[2], pairs[2]]
    assert list(effects[torch.tensor([4, 1])]) == [pairs[4], pairs[1]]
    assert list(effects[[]]) == []


def test_a_sum_has_every_node_once_with_all_its_effects():
    parts = [drawn(seed, 60) for seed in range(3)]
    totals: dict[Node, float] = {}
    for node, effect in (pair for part in parts for pair in part):
        totals[node] = totals.get(node, 0.0) + effect
    found = NodeEffects.sum([listed(part) for part in parts])
    assert len(found) == len(totals)
    assert dict(found) == pytest.approx(totals, abs=1e-15)
    backwards = NodeEffects.sum([listed(part[::-1]) for part in parts[::-1]])
    assert backwards.nodes() == found.nodes()


def test_effects_summed_batch_by_batch_are_those_summed_at_once_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    parts = []
    for n in (4, 1, 6, 9, 2, 30, 3):
        key = torch.randint(5, (n,), generator=generator).unique()
        effect = torch.randn(len(key), generator=generator, dtype=torch.float64)
        parts.append(NodeEffects(NAMES, key, effect))
    sums = EffectSums()
    for part in parts:
        sums.add(part)
    assert sums.sum() == NodeEffects.sum(parts)


def test_parts_follow_each_other():
    parts = [drawn(seed, 10) for seed in range(3)]
    found = NodeEffects.one_after_another([listed(part) for part in parts])
    assert list(found) == [pair for part in parts for pair in part]


def test_the_strongest_come_first_with_their_mean():
    pairs = drawn(2, 60)
    found = list(NodeEffects.sum([listed(pairs)]).ranked(4))
    assert dict(found) == pytest.approx({node: effect / 4 for node, effect in pairs})
    sizes = [abs(effect) for _, effect in found]
    assert sizes == sorted(sizes, reverse=True)


def test_equal_effects_are_in_an_order_that_no_batch_has_a_part_in():
    nodes = [node for node, _ in drawn(3, 50)]
    signs = [(node, 1.0 - 2.0 * (i % 2)) for i, node in enumerate(nodes)]
    orders = [
        NodeEffects.sum([listed(part) for part in parts]).ranked(1).nodes()
        for parts in ([signs], [signs[30:], signs[:30]], [signs[::-1]])
    ]
    assert orders[0] == orders[1] == orders[2]


def test_kinds_are_told_apart():
    pairs = drawn(4, 90)
    effects = listed(pairs)
    inner = [pair for pair in pairs if pair[0].kind != "token"]
    assert list(effects.inner()) == inner
    assert list(effects.features()) == [pair for pair in inner if pair[0].kind == "feature"]
    at = effects.at_sites("mlp_out").tolist()
    assert at == [node.site.startswith("mlp_out") for node, _ in pairs]
    assert list(effects.where(effects.effect > 0)) == [pair for pair in pairs if pair[1] > 0]
    groups: dict[int, set] = {}
    for group, (node, _) in zip(effects.inner().group.tolist(), inner, strict=True):
        groups.setdefault(group, set()).add((node.site, node.kind))
    assert all(len(group) == 1 for group in groups.values())
    assert len(groups) == len({(node.site, node.kind) for node, _ in inner})


def test_a_node_is_found_where_it_stands():
    pairs = drawn(5, 40)
    effects = listed(pairs)
    assert [effects.place_of(node) for node, _ in pairs] == list(range(40))


def test_the_same_nodes_may_have_other_effects():
    pairs = drawn(6, 10)
    other = torch.arange(10.0)
    found = list(listed(pairs).with_effects(other))
    assert found == [(node, float(i)) for i, (node, _) in enumerate(pairs)]


@pytest.mark.parametrize("positions", [(None,), range(LENGTH), (None, *range(LENGTH))])
def test_as_a_set_they_are_the_set_of_their_nodes(positions):
    pairs = drawn(7, 30, positions)
    found, expected = listed(pairs).as_set(), NodeSet.of([node for node, _ in pairs])
    index, at = torch.arange(WIDTH).expand(LENGTH, WIDTH), torch.arange(LENGTH)
    for name in NAMES[1:]:
        assert torch.equal(found.feature(name, index, at), expected.feature(name, index, at))
        assert found.has_features(name) == expected.has_features(name)
    for site in map(Site.parse, ("attn_out.0", "mlp_out.0", "resid_post.1")):
        assert torch.equal(found.error(site, at), expected.error(site, at))
        assert found.has_error(site) == expected.has_error(site)


def test_a_file_holds_them_to_the_last_bit(tmp_path):
    effects = listed([*drawn(8, 70), (Node("clt", 1, 99), 1 / 3)])
    effects.save(tmp_path / "effects.safetensors")
    found = NodeEffects.load(tmp_path / "effects.safetensors")
    assert found.names == NAMES
    assert list(found) == list(effects)
    listed([]).save(tmp_path / "none.safetensors")
    assert list(NodeEffects.load(tmp_path / "none.safetensors")) == []
    with pytest.raises(OSError, match="missing"):
        NodeEffects.load(tmp_path / "missing.safetensors")
