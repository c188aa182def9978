"""`circuits.intervene`: edits, nodes and groups as rows of a table."""

import pytest

import circuits
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.edits.rerun import rerun_prompts
from circuits.graph import Node
from saes.edit import Edit, Operation
from tests.circuits.discovery.replaced import SITES, speaking
from tests.toys import toy_prompts, toy_suite
from transcoders.interventions import Mode


def opened(n=2, suite=None, **config):
    config = {"method": "replacement", "nodes": None, "reference": "zero", **config}
    suite = suite or toy_suite(*SITES)
    return Analysis.of(speaking(), suite, toy_prompts(n), DiscoverConfig(**config))


@pytest.fixture(scope="module")
def circuit():
    return circuits.discover(opened(1))


def features(circuit, n):
    found = [x for x in circuits_order(circuit) if x.kind == "feature"]
    return found[:n]


def circuits_order(circuit):
    return [Node.parse(name) for name in circuit.nodes.index if not name.startswith("logit/")]


def test_of_every_node_alone_the_prediction_is_the_effect_in_the_graph(circuit):
    table = circuits.intervene(circuit, attention="frozen", mlps="linear")
    inner = [n for n in circuits_order(circuit) if n.kind != "token"]
    assert list(table["edit"]) == [str(n) for n in inner]
    assert list(table["change"]) == pytest.approx(list(table["predicted"]), abs=1e-12)
    for name, predicted in zip(table["edit"], table["predicted"], strict=True):
        effect = circuit.graph.nodes[Node.parse(name)]["effect"]
        # Numbers in a graph are rounded.
        assert predicted == pytest.approx(effect, rel=1e-6, abs=1e-9)


def test_there_is_a_row_for_each_edit_prompt_and_mode_and_the_model_is_the_edit_rerun():
    analysis = opened(3)
    cut = Edit(operations=(Operation(node=Node("mlp_out.0", "error"), do="zero"),))
    pair = (Node("mlp_out.1", "*", 3), Node("mlp_out.2", "error", 5))
    table = circuits.intervene(
        analysis, {"cut": cut, "pair": pair}, attention=("free", "frozen"), mlps=("model", "linear")
    )
    assert len(table) == 2 * 3 * 4
    expected = rerun_prompts(analysis, cut)["prompts"]
    rows = table.to_dict("records")
    of_model = [
        row
        for row in rows
        if (row["edit"], row["attention"], row["mlps"]) == ("cut", "free", "model")
    ]
    for row, found in zip(expected, of_model, strict=True):
        for when in ("before", "after"):
            assert found[when] == pytest.approx(row[when], rel=1e-6)
    linear = table[(table.attention == "frozen") & (table.mlps == "linear")]
    assert list(linear["change"]) == pytest.approx(list(linear["predicted"]), abs=1e-12)
    assert set(table.groupby("edit")["predicted"].nunique()) == {3}


def test_nodes_go_to_the_patch_of_their_own_prompt():
    analysis = opened(3, reference="patch")
    every = [Node(site, "*") for site in ("mlp_out.0", "mlp_out.1", "mlp_out.2")]
    every += [Node(n.site, "error") for n in every]
    edit = Edit(operations=tuple(Operation(node=node, do="patch") for node in every))
    expected = [row["after"] for row in rerun_prompts(analysis, edit)["prompts"]]
    table = circuits.intervene(analysis, {"all": every}, do="patch")
    assert list(table["after"]) == pytest.approx(expected, rel=1e-6)
    assert len(set(table["after"])) == 3


def test_prompts_are_rerun_with_part_of_the_model_held_and_the_prediction_beside():
    analysis = opened(2)
    edit = Edit(operations=(Operation(node=Node("mlp_out.1", "*", 3), do="scale", value=0.5),))
    record = rerun_prompts(analysis, edit, Mode(attention="frozen", mlps="transcoders"))
    table = circuits.intervene(analysis, [edit], attention="frozen", mlps="transcoders")
    assert [row["after"] for row in record["prompts"]] == pytest.approx(list(table["after"]))
    assert record["predicted"]["value"] == pytest.approx(table["predicted"].mean(), rel=1e-6)
    assert (record["attention"], record["mlps"]) == ("frozen", "transcoders")
    assert record["kl"]["value"] > 0


def test_more_edits_than_a_pass_has_room_for_are_several(small_chunks, circuit):
    chosen = features(circuit, 7)
    together = circuits.intervene(circuit, chosen)
    small_chunks("circuits.edits.held_run.ROWS_AT_ONCE", 3)
    apart = circuits.intervene(circuit, chosen)
    assert list(apart["after"]) == pytest.approx(list(together["after"]), abs=1e-12)


def test_other_dictionaries_have_no_prediction_and_attention_can_be_frozen_all_the_same():
    analysis = opened(1, toy_suite("mlp_out.1", "resid_post.0"), method="sparse-feature", nodes=5)
    node = Node("resid_post.0", "*", 2)
    table = circuits.intervene(analysis, [node], attention=("free", "frozen"))
    assert list(table["predicted"]) == [None, None]
    free, frozen = table["change"]
    assert free != frozen
    with pytest.raises(ValueError, match="a replacement model needs transcoders"):
        circuits.intervene(analysis, [node], mlps="linear")


def test_what_cannot_be_done_is_one_line(circuit):
    off = next(
        Node("mlp_out.0", i, 2) for i in range(20) if Node("mlp_out.0", i, 2) not in circuit.graph
    )
    for asked, attention, message in (
        ([off], "free", f"{off}, to zero at the positions all, was off"),
        (["mlp_out.9/3"], "free", "there is no dictionary for mlp_out.9/3"),
        ([], "free", "there is nothing to edit"),
        (None, "held", "attention is 'held': expected free, patterns, frozen"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message) as error:
            circuits.intervene(circuit, asked, attention=attention)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="an analysis has no nodes of its own"):
        circuits.intervene(circuit.analysis)
