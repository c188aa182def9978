"""Controls of an ablation: as many other nodes, at the same sites and positions, drawn anew."""

from collections import Counter

import pytest
import torch

from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.edits.control_nodes import DRAWS, NEAREST, control_nodes
from circuits.graph import Node
from tests.circuits.dense import dense, nodes_that_move, ranking_of
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts

RANDOM = "random nodes at the same sites and positions"
ALIKE = "features as active at the same sites and positions"


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def ranking(analysis):
    return ranking_of(analysis.suite, nodes_that_move(analysis, analysis.states[0]))


def test_controls_are_other_nodes_at_the_same_sites_and_positions(analysis):
    states, prompts = analysis.states, analysis.prompts
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    features = [n for n, _ in ranking if n.kind == "feature"]
    ablated = tuple(n for n in features if n.site == "resid_post.1" and n.position in (2, 5))[:3]
    edit = edits.Ablation(ablated=ablated)
    wanted = Counter((n.site, n.position) for n in ablated)
    controls = control_nodes(edit, ranking, states, seed=0)
    assert list(controls) == [
        "3 random nodes at the same sites and positions",
        "3 features as active at the same sites and positions",
    ]
    for draws in controls.values():
        assert len(draws) == 3
        for drawn in draws:
            assert Counter((n.site, n.position) for n in drawn) == wanted
            assert not set(drawn) & set(ablated)
    result = ablate(analysis, edit, ranking)
    assert [c["name"] for c in result["controls"]] == list(controls)
    assert all(c["after"] != result["after"] for c in result["controls"])
    assert len(result["prompts"]) == len(prompts)


def test_a_feature_at_every_position_is_answered_by_another_at_every_position(analysis):
    """One node in its place would ablate one position where the feature ablates six."""
    states = analysis.states
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    edit = edits.Ablation(ablated=(Node("mlp_out.1", 2), Node("mlp_out.1", 5)))
    for draws in control_nodes(edit, ranking, states, seed=0).values():
        for drawn in draws:
            assert [n.position for n in drawn] == [None, None]
            assert len({n.feature for n in drawn} - {2, 5}) == 2


def test_the_control_of_like_activation_is_of_like_activation(analysis):
    states = analysis.states
    ranking = ranking_of(analysis.suite, nodes_that_move(analysis, states[0]))
    f = torch.cat([dense(s, "resid_post.1").f[:, 3] for s in states]).mean(0)
    by_size = f.argsort(descending=True).tolist()
    strongest = Node("resid_post.1", by_size[0], 3)
    draws = control_nodes(edits.Ablation(ablated=(strongest,)), ranking, states, seed=0)[
        "1 features as active at the same sites and positions"
    ]
    assert {n.feature for (n,) in draws} <= set(by_size[1:6])


def strongest(ranking, kind, n):
    return tuple(node for node, _ in ranking if node.kind == kind)[:n]


def test_a_seed_draws_the_same_controls_and_another_seed_others(analysis, ranking):
    edit = edits.Ablation(ablated=strongest(ranking, "feature", 4))
    first, again, other = (control_nodes(edit, ranking, analysis.states, seed=s) for s in (0, 0, 9))
    assert first == again
    for name, draws in first.items():
        assert len(draws) == DRAWS
        assert draws != other[name]


def test_errors_are_answered_by_errors_and_none_is_as_active(analysis, ranking):
    errors = strongest(ranking, "error", 2)
    found = control_nodes(edits.Ablation(ablated=errors), ranking, analysis.states, seed=0)
    assert list(found) == [f"2 {RANDOM}"]
    for drawn in found[f"2 {RANDOM}"]:
        assert Counter(n.site for n in drawn) == Counter(n.site for n in errors)
        assert {n.kind for n in drawn} == {"error"}
        assert not set(drawn) & set(errors)


def test_what_is_kept_is_answered_by_as_many_that_may_be_among_them(analysis, ranking):
    """A circuit of all nodes but one can only be drawn from all of them."""
    nodes = [n for n in ranking.nodes() if n.site == "resid_post.1" and n.position == 3]
    edit = edits.Ablation(kept=tuple(nodes[:-1]))
    (name, draws), *others = control_nodes(edit, ranking, analysis.states, seed=0).items()
    assert not others
    assert name == f"{len(nodes) - 1} {RANDOM}"
    for drawn in draws:
        assert len(set(drawn)) == len(nodes) - 1
        assert set(drawn) <= set(nodes)


def test_where_a_position_has_too_few_others_of_the_site_stand_in(analysis):
    """Three nodes move at the position, two of them are ablated: one is left for two."""
    here = [Node("mlp_out.0", i, 4) for i in (1, 2, 3)]
    elsewhere = [Node("mlp_out.0", i, p) for i, p in ((7, 1), (8, 2), (9, 5))]
    other = [Node("mlp_out.1", i, 4) for i in range(6)]
    ranking = ranking_of(analysis.suite, [*here, *elsewhere, *other])
    edit = edits.Ablation(ablated=tuple(here[:2]))
    for drawn in control_nodes(edit, ranking, analysis.states, seed=0)[f"2 {RANDOM}"]:
        assert len(set(drawn)) == 2
        assert set(drawn) <= {here[2], *elsewhere}


def test_where_a_site_has_too_few_there_is_no_control(analysis):
    here = [Node("mlp_out.0", i, 4) for i in (1, 2, 3)]
    ranking = ranking_of(analysis.suite, [*here, Node("mlp_out.1", 1, 4)])
    edit = edits.Ablation(ablated=tuple(here))
    assert f"3 {RANDOM}" not in control_nodes(edit, ranking, analysis.states, seed=0)


def test_features_as_active_are_no_more_than_there_are(analysis, ranking):
    """With every feature of a site ablated but two, two is all that each draw can have."""
    at = tuple(Node("mlp_out.0", i) for i in range(18))
    found = control_nodes(edits.Ablation(ablated=at), ranking, analysis.states, seed=0)
    assert f"18 {ALIKE}" not in found
    few = edits.Ablation(ablated=at[:NEAREST])
    for drawn in control_nodes(few, ranking, analysis.states, seed=0)[f"{NEAREST} {ALIKE}"]:
        assert len({n.feature for n in drawn} - set(range(NEAREST))) == NEAREST


def test_states_that_are_not_kept_are_made_once(analysis, ranking):
    """However many sites and positions the ablated nodes are at."""
    made = []

    class Made(list):
        def __getitem__(self, at):
            made.append(at)
            return super().__getitem__(at)

    asked = []
    for sites, positions in ((["resid_post.0"], [2]), (["resid_post.0", "resid_post.1"], [2, 3])):
        made.clear()
        ablated = tuple(Node(site, 1, at) for site in sites for at in positions)
        control_nodes(edits.Ablation(ablated=ablated), ranking, Made(analysis.states), seed=0)
        asked.append(len(made))
    # The checker of types asks for some too, as often each time.
    assert asked[0] == asked[1] > 0
