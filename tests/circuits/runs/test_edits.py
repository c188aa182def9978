"""What each verb for edits does: nodes chosen, edits written, composed, inverted, baked."""

import json
import shutil

import networkx as nx
import pytest

import circuits
from circuits import graph as graphs
from circuits.edits.make import Change, strongest
from circuits.graph import Node
from circuits.runs.edits import (
    Selection,
    bake_edit,
    check_without_means,
    compose_edits,
    invert_edit,
    make_edit,
    read_edit,
    verify_edited_graph,
)
from circuits.verification.verify import VerifyConfig
from saes.edit import Edit, Operation
from tests.circuits.conftest import call
from tests.toys import toy_suite


def test_the_command_makes_shows_composes_and_inverts(tmp_path, fails):
    half, cut = tmp_path / "half.json", tmp_path / "cut.json"
    made = call("edit", "make", "--features", "resid_post.3/5,mlp_out.2/7@4", "--do", "scale",
                "--value", 0.5, "--when", "resid_post.0/3>0.5", "--out", half)  # fmt: skip
    assert made.exit_code == 0, made.output
    assert Edit.load(half).operations[1] == Operation(
        node=Node("mlp_out.2", 7, 4), do="scale", value=0.5,
        when=circuits.Condition(node=Node("resid_post.0", 3), above=0.5),
    )  # fmt: skip
    shown = call("edit", "show", half, "--dictionaries", "bundled").output
    assert "multiplied by 0.5" in shown
    assert "resid_post.0/3 is above 0.5" in shown
    back = tmp_path / "back.json"
    assert call("edit", "make", "--invert", half, "--out", back).exit_code == 0
    assert [op.value for op in Edit.load(back).operations] == [2.0, 2.0]
    both = tmp_path / "both.json"
    assert call("edit", "make", "--compose", half, back, "--out", both).exit_code == 0
    assert len(Edit.load(both).operations) == 4
    call("edit", "make", "--features", "resid_post.3/5", "--out", cut)
    assert "has no inverse" in fails("edit", "make", "--invert", cut, "--out", back)
    assert "--force" in fails("edit", "make", "--features", "resid_post.3/6", "--out", cut)
    assert "expected one of zero, mean" in fails(
        "edit", "make", "--features", "resid_post.3/6", "--do", "double", "--out", back
    )
    refused = fails("edit", "show", half, "--dictionaries", "bundled", "--mlp", "transcoder")
    assert refused.count("dictionaries (ours)") == 2
    assert "a run's graph: name the run's folder" in fails("edit", "make", "--top", 3, "--out", cut)
    assert "--when is 'x'" in fails("edit", "make", "--top", 3, "--when", "x", "--out", cut)
    assert "--value is 'x'" in fails("edit", "make", "--top", 3, "--value", "x", "--out", cut)
    assert "a mean is over the prompts of a run" in fails(
        "edit", "make", "--features", "resid_post.3/6", "--do", "mean", "--out", cut
    )


def test_a_runs_graph_and_a_file_edited_by_hand(tmp_path):
    prompts, run = tmp_path / "prompts.jsonl", tmp_path / "run"
    prompts.write_text("".join(json.dumps(p) + "\n" for p in PROMPTS))
    (tmp_path / "few.txt").write_text("The keys near the cabinet sit. " * 40)
    done = call("discover", prompts, "--nodes", 8, "--estimator", "patching", "--text",
                tmp_path / "few.txt", "--quiet", "--out", run)  # fmt: skip
    assert done.exit_code == 0, done.output
    graph = graphs.load(run / "graph.json")
    made = make_edit(Selection(top=3), Change(do="mean"), tmp_path / "top.json", run=run)
    assert [op.node for op in made.operations] == list(strongest(graph, 3))
    assert set(made.means) == {op.node for op in made.operations}
    kept = [n for n in graph if n.kind == "feature"][:2]
    (tmp_path / "kept.json").write_text(json.dumps(nx.node_link_data(graph.subgraph(kept))))
    outside = call("edit", "make", run, "--nodes", tmp_path / "kept.json", "--outside",
                   "--out", tmp_path / "outside.json")  # fmt: skip
    assert outside.exit_code == 0, outside.output
    operations = Edit.load(tmp_path / "outside.json").operations
    assert len(operations) == 15
    assert {n for op in operations for n in op.besides} == set(kept)


PROMPTS = [
    {"clean": "The keys near the cabinet", "patch": "The key near the cabinet",
     "answer": " are", "wrong": " is"}
]  # fmt: skip


def edit_of(node, do, value=None):
    return Edit(operations=(Operation(node=Node.parse(node), do=do, value=value),))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"features": "mlp_out.0/1", "top": 3},
        {"top": 3, "outside": True},
        {"features": "mlp_out.0/1", "outside": True},
    ],
)
def test_one_thing_says_what_an_edit_is_of(given):
    with pytest.raises(ValueError, match="say what the edit is of with one of --features, --top"):
        Selection(**given)


def test_groups_are_of_a_file(tmp_path):
    with pytest.raises(ValueError, match="--group is one of a file: name it with --nodes"):
        Selection(top=3, groups=("a",))
    assert Selection(nodes=tmp_path / "kept.json", outside=True, groups=("a",)).outside


def test_a_position_is_said_once(tmp_path):
    named = Selection(features="resid_post.3/5@2")
    with pytest.raises(ValueError, match="resid_post.3/5@2 has a position of its own: leave out @"):
        make_edit(named, Change(positions="last"), tmp_path / "edit.json")
    assert not (tmp_path / "edit.json").exists()


def test_edits_are_done_one_after_another_and_undone(tmp_path):
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    edits = [edit_of("mlp_out.0/1", "add", 2.0), edit_of("mlp_out.0/1", "scale", 4.0)]
    for path, edit in zip(paths, edits, strict=True):
        edit.save(path)
    both = compose_edits(paths, tmp_path / "both.json")
    assert both.operations == (*edits[0].operations, *edits[1].operations)
    back = invert_edit(tmp_path / "both.json", tmp_path / "back.json")
    assert [(op.do, op.value) for op in back.operations] == [("scale", 0.25), ("add", -2.0)]
    assert read_edit(tmp_path / "back.json") == back
    with pytest.raises(ValueError, match="is there already and is not the same"):
        compose_edits(paths[:1], tmp_path / "both.json")
    assert compose_edits(paths, tmp_path / "both.json") == both


def test_an_edit_of_means_is_checked_once_they_are_known():
    suite = toy_suite("mlp_out.0")
    check_without_means(suite, edit_of("mlp_out.0/1", "mean"))
    with pytest.raises(ValueError, match="no dictionary for mlp_out.9/1"):
        check_without_means(suite, edit_of("mlp_out.9/1", "zero"))


def test_a_graph_edited_by_hand_is_verified_in_a_folder_of_its_name(small_run, tmp_path):
    run = shutil.copytree(small_run[0] / "run", tmp_path / "run")
    graph = graphs.load(run / "graph.json")
    graph.remove_node(next(n for n in graph if n.kind == "feature"))
    graphs.save(graph, tmp_path / "fewer.json")
    asked = VerifyConfig(level="quick")
    record, into = verify_edited_graph(run, tmp_path / "fewer.json", config=asked)
    assert into == run / "edited" / "fewer"
    written = json.loads((into / "verification.json").read_text())
    assert written.pop("made_from")["level"] == "quick"
    assert written == json.loads(json.dumps(record))
    assert (into / "fewer.json").read_bytes() == (tmp_path / "fewer.json").read_bytes()
    with pytest.raises(ValueError, match="made from something else"):
        verify_edited_graph(run, tmp_path / "fewer.json", config=VerifyConfig(seed=1))


def test_what_is_no_baked_model_is_not_replaced_and_prompts_are_asked_for(tmp_path):
    path = tmp_path / "edit.json"
    edit_of("resid_post.3/5", "zero").save(path)
    with pytest.raises(ValueError, match="is there and is no baked model: choose another --out"):
        bake_edit(path, tmp_path)
    with pytest.raises(ValueError, match="name some with --prompts, or a run with --run"):
        bake_edit(path, tmp_path / "baked")
