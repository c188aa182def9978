"""Suggested groups: features alike in edges and tokens together, named by what they share."""

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.suggestions import ALIKE, MOST_FEATURES, MOST_GROUPS, TOKENS, suggested_groups
from tests.circuits import synthetic

OUTPUT = Node("logit", " are")


def features(layer, numbers):
    return [Node(f"mlp_out.{layer}", number, 1) for number in numbers]


def graph_of(nodes, edges, labels=None):
    """Features with effects that fall in the order of `nodes`; edges have weights."""
    graph = nx.DiGraph()
    for i, node in enumerate(nodes):
        label = (labels or {}).get(node, "")
        graph.add_node(node, kind=node.kind, effect=-10.0 / (i + 1), label=label)
    graph.add_node(OUTPUT, kind="logit", effect=None, label="")
    graph.add_weighted_edges_from(edges)
    return graph


def cards(tokens):
    """Of what each feature promotes."""
    return {
        f"{node.site}/{node.feature}": {"promoted": [[token, 1.0] for token in promoted]}
        for node, promoted in tokens.items()
    }


def members(found):
    return [set(one["members"]) for one in found]


def names(nodes):
    return set(map(str, nodes))


@pytest.fixture
def two():
    """Three features that feed one, two that feed another; and cards that say nothing."""
    plural, singular = features(0, (1, 2, 3)), features(0, (4, 5))
    ends = features(2, (8, 9))
    edges = [*((n, ends[0], 1.0) for n in plural), *((n, ends[1], -2.0) for n in singular)]
    return graph_of([*plural, *singular, *ends], edges), plural, singular


def test_features_of_like_edges_are_a_group_the_strongest_first(two):
    graph, plural, singular = two
    found = suggested_groups(graph, {})
    assert members(found) == [names(plural), names(singular)]
    assert [one["members"][0] for one in found] == [str(plural[0]), str(singular[0])]
    assert [one["why"] for one in found] == ["all feed #8", "all feed #9"]
    graph.nodes[plural[0]]["effect"], graph.nodes[singular[0]]["effect"] = 40.0, 30.0
    graph.nodes[singular[1]]["effect"] = 25.0
    assert members(suggested_groups(graph, {})) == [names(singular), names(plural)], "by the sum"


def test_likeness_is_the_cosine_of_edges_and_opposite_edges_are_not_alike():
    """Edges (a, b) and (1, 0): the cosine is a / |(a, b)|, and joined from `ALIKE` on."""
    one, two, end, other = *features(0, (1, 2)), *features(2, (8, 9))
    for a, b, alike in ((1.0, 0.0, True), (-1.0, 0.0, False), (0.4, 1.0, True), (0.3, 1.0, False)):
        assert (a / (a * a + b * b) ** 0.5 > ALIKE) is alike
        graph = graph_of([one, two, end, other], [(one, end, 5.0), (two, end, a), (two, other, b)])
        assert members(suggested_groups(graph, {})) == ([names([one, two])] if alike else [])


def test_a_source_of_one_is_no_target_of_the_other():
    one, two, between = *features(0, (1, 2)), *features(1, (5,))
    graph = graph_of([one, two, between], [(one, between, 1.0), (between, two, 1.0)])
    assert suggested_groups(graph, {}) == []


def test_features_that_promote_the_same_tokens_are_alike_by_the_share_of_them():
    """2 of 4 different tokens in both is 0.5, 1 of 5 is 0.2."""
    one, two, three = features(0, (1, 2, 3))
    graph = graph_of([one, two, three], [])
    tokens = {
        one: [" are", " were", " do"],
        two: [" are", " were", " go"],
        three: [" are", "x", "y"],
    }
    (found,) = suggested_groups(graph, cards(tokens))
    assert set(found["members"]) == names([one, two])
    assert found["why"] == "all promote “ are”, “ were”"
    assert suggested_groups(graph, {}) == []
    assert suggested_groups(graph, cards({one: [], two: []})) == []
    late = {node: [*(f"{node.feature}{i}" for i in range(TOKENS)), "x"] for node in (one, two)}
    assert suggested_groups(graph, cards(late)) == [], "tokens after the first are not compared"


def test_what_most_share_is_told_and_what_half_share_is_not():
    four = features(0, (1, 2, 3, 4))
    same = [" are", " were", " have", " become"]
    tokens = {n: [*same, " do"] for n in four[:3]} | {four[3]: same}
    edges = [(n, OUTPUT, 1.0) for n in four[:2]]
    (found,) = suggested_groups(graph_of(four, edges), cards(tokens))
    assert found["why"] == "all promote “ are”, “ have”, “ were”"
    tokens = {n: [*same[:2], "abcd"[i]] for i, n in enumerate(four)} | {four[3]: [*same[:1], "c"]}
    edges = [(n, OUTPUT, 1.0) for n in four[:3]]
    (found,) = suggested_groups(graph_of(four, edges), cards(tokens))
    assert found["why"] == "all promote “ are”; 3 of 4 feed the output"


def test_a_group_that_shares_nothing_in_most_has_like_edges():
    """Each of three shares one target with each other one, and no target is of all."""
    three, ends = features(0, (1, 2, 3)), features(2, (7, 8, 9))
    edges = [(n, end, 1.0) for i, n in enumerate(three) for j, end in enumerate(ends) if i != j]
    found = suggested_groups(graph_of([*three, *ends], edges), {})
    group = next(one for one in found if str(three[0]) in one["members"])
    assert set(group["members"]) == names(three)
    assert group["why"] == "2 of 3 feed #7, #8, #9"
    sources = features(0, (1, 2, 3, 4))
    readers = features(1, (5, 6))
    edges = [(s, r, 1.0) for s in sources for r in readers]
    found = suggested_groups(graph_of([*readers, *sources], edges), {})
    assert next(one for one in found if str(readers[0]) in one["members"])["why"] == "like edges"


def test_a_group_is_called_what_most_of_its_members_are(two):
    graph, plural, _ = two
    for node in plural[1:]:
        graph.nodes[node]["label"] = "plural nouns"
    assert suggested_groups(graph, {})[0]["name"] == "plural nouns"


def test_a_group_has_two_to_twelve_members_and_there_are_twelve_at_most():
    ends = features(2, range(900, 920))
    for size in (1, 2, 12, 13):
        some = features(0, range(size))
        graph = graph_of([*some, *ends], [(node, ends[0], 1.0) for node in some])
        assert members(suggested_groups(graph, {})) == ([names(some)] if 2 <= size <= 12 else [])
    pairs = [features(0, (2 * i, 2 * i + 1)) for i in range(MOST_GROUPS + 3)]
    edges = [(node, end, 1.0) for pair, end in zip(pairs, ends, strict=False) for node in pair]
    graph = graph_of([*(node for pair in pairs for node in pair), *ends], edges)
    assert members(suggested_groups(graph, {})) == [names(pair) for pair in pairs[:MOST_GROUPS]]


def test_the_weakest_of_many_features_and_other_nodes_are_in_no_group():
    many = features(0, range(MOST_FEATURES + 2))
    error, token = Node("mlp_out.0", "error", 1), Node("embed", "token", 1)
    graph = graph_of(many, [(node, OUTPUT, 1.0) for node in (*many[-2:], error, token)])
    for node in (error, token):
        graph.nodes[node].update(kind=node.kind, effect=99.0, label="")
    assert suggested_groups(graph, {}) == []
    graph.nodes[many[-1]]["effect"] = graph.nodes[many[-2]]["effect"] = 50.0
    assert members(suggested_groups(graph, {})) == [names(many[-2:])]


def test_each_feature_is_in_one_group_and_the_same_graph_gives_the_same():
    graph = synthetic.circuit(200, seed=1)
    tokens = synthetic.cards(graph)
    found = suggested_groups(graph, tokens)
    every = [one for group in found for one in group["members"]]
    assert len(every) == len(set(every)) > 10
    assert found == suggested_groups(graph.copy(), tokens)
