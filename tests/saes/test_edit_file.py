"""The file of an edit: all of it comes back, and what is wrong with it is one line."""

import json

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation

SITE = "resid_post.1"
NORMS = ((Site("mlp_out", 0), 9.5), (Site("resid_post", 1), 12))


def test_a_file_holds_all_of_an_edit(tmp_path):
    edit = Edit(
        operations=(
            Operation(node=Node("mlp_out.0", 3, 5), do="scale", value=2.0, positions="generated"),
            Operation(node=Node(SITE, "error"), do="mean", positions=(0, 3)),
            Operation(
                node=Node(SITE, 7),
                do="clamp",
                value=(0.0, 1.5),
                when=Condition(node=Node("mlp_out.0", 3), above=0.5),
            ),
            Operation(node=Node(SITE, 8), do="scale", value=0.5, norm_below=NORMS),
        ),
        means={Node(SITE, "error"): torch.tensor([0.25, -1.0]), Node(SITE, 7): 0.5},
        suite="0123",
    )
    edit.save(tmp_path / "edit.json")
    record = json.loads((tmp_path / "edit.json").read_text())
    assert record["schema"] == "edit/1"
    assert record["operations"][0] == {
        "node": "mlp_out.0/3@5", "do": "scale", "value": 2.0, "positions": "generated",
    }  # fmt: skip
    assert record["operations"][3]["norm_below"] == {"mlp_out.0": 9.5, SITE: 12}
    again = Edit.load(tmp_path / "edit.json")
    assert again.operations == edit.operations
    assert again.operations[3].inverse().norm_below == NORMS
    assert again.suite == "0123"
    assert torch.equal(again.means[Node(SITE, "error")], edit.means[Node(SITE, "error")])
    assert again.means[Node(SITE, 7)] == 0.5


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"do": "set"}, "expected a value"),
        ({"do": "zero", "value": 1.0}, "expected none"),
        ({"do": "clamp", "value": 2.0}, r"expected \(low, high\)"),
        ({"do": "clamp", "value": (2.0, 1.0)}, "from 2.0 up to 1.0"),
    ],
)
def test_what_cannot_be_done_is_refused(operation, message):
    with pytest.raises(ValueError, match=message):
        Operation(node=Node(SITE, 1), **operation)


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "edit.json"
    for text in ("", "[]", '{"schema": "edit/2"}', '{"schema": "edit/1"}',
                 '{"schema": "edit/1", "operations": [{"node": "x", "do": "zero"}]}'):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match="cannot read the edit") as raised:
            Edit.load(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"node": "mlp_out.0/1", "do": "double"}, "expected one of zero"),
        ({"node": "mlp_out.0/1", "do": "zero", "positions": "first"}, "no tokens are called"),
        ({"node": "token@5", "do": "zero"}, "expected a feature or an error"),
        ({"node": "mlp_out.0/error", "do": "add", "value": 1.0}, "an error is a vector"),
    ],
)
def test_a_file_that_asks_for_what_there_is_not_is_refused(tmp_path, operation, message):
    path = tmp_path / "edit.json"
    path.write_text(json.dumps({"schema": "edit/1", "operations": [operation]}))
    with pytest.raises(ValueError, match=message):
        Edit.load(path)


@pytest.mark.parametrize(("do", "value"), [("set", float("nan")), ("clamp", (0.0, float("inf")))])
def test_values_and_limits_are_finite_as_the_file_holds_no_others(do, value):
    with pytest.raises(ValueError, match="has the value .*: expected finite numbers"):
        Operation(node=Node("mlp_out.0", 1), do=do, value=value)
    with pytest.raises(ValueError, match="is to be above inf: expected a finite"):
        Condition(node=Node("mlp_out.0", 1), above=float("inf"))
