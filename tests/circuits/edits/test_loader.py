"""The loader of a baked model is Python that has what its edit needs; what has none is told."""

import pytest

from circuits.edits.loader import CannotWrite, loader_text, needed
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation
from saes.suite import Suite
from tests.circuits.test_several_sites import cross_layer
from tests.toys import SIZES, toy_suite

SITES = ("mlp_out.0", "attn_out.1", "resid_post.1", "mlp_in.2-mlp_out.2", "mlp_in.0-resid_post.0")
WHEN = Condition(node=Node("attn_out.1", 18), above=12.0)
PARTS = {
    "def follow(": {"positions": "last"},
    "def usual(": {"norm_below": ((Site("resid_post", 1), 9.0),)},
    "ON[name] = f": {"when": WHEN},
}
"A part of the loader, and what in an operation asks for it."


@pytest.fixture(scope="module")
def suite():
    made = toy_suite(*SITES)
    crossing = {"clt.0": cross_layer(0, SIZES["hidden_size"])}
    return Suite({name: made[name] for name in made} | crossing, {})


def edit_of(node, do="zero", value=None, **more):
    return Edit(operations=(Operation(node=Node.parse(node), do=do, value=value, **more),))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_there_where_an_operation_asks_for_it_and_only_there(suite, part):
    with_it = loader_text(suite, edit_of("resid_post.1/5", **PARTS[part]))
    compile(with_it, "load_edited.py", "exec")
    assert part in with_it
    for other in PARTS.keys() - {part}:
        assert other not in with_it
    assert part not in loader_text(suite, edit_of("resid_post.1/5"))


def test_dictionaries_are_those_of_the_nodes_and_of_conditions_in_the_order_of_the_suite(suite):
    assert needed(suite, edit_of("resid_post.1/5", when=WHEN)) == ["attn_out.1", "resid_post.1"]
    assert needed(suite, edit_of("resid_post.1/error")) == ["resid_post.1"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_of("resid_post.1/5", "patch"), "goes to the patch's value, which no other text has"),
        (
            edit_of("attn_out.1/5", norm_below=((Site("mlp_in", 1), 9.0),)),
            "edited by the norm at mlp_in.1: the loader knows that of what its own module reads",
        ),
        (
            edit_of("clt.0/3"),
            r"clt.0 reads resid_mid.0 and writes mlp_out.0, mlp_out.1, mlp_out.2: the loader knows",
        ),
        (edit_of("resid_post.0/3"), "reads mlp_in.0 and writes resid_post.0: the loader knows"),
    ],
)
def test_why_there_is_no_loader_is_told(suite, edit, message):
    with pytest.raises(CannotWrite, match=message):
        loader_text(suite, edit)
