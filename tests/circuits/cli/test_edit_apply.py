"""`circuits edit apply` on the bundled model: what it writes, what it refuses."""

import json

import pytest

from circuits.runs.rerun import Rerun, rerun_edit
from hooked_qwen.nodes import Node
from saes.edit_file import Edit, Operation


@pytest.fixture
def cut(tmp_path):
    edit = Edit(operations=(Operation(node=Node("resid_post.3", 86), do="zero"),))
    edit.save(tmp_path / "cut.json")
    return tmp_path / "cut.json"


def test_a_rerun_is_written_refused_and_replaced(cut, tmp_path):
    rerun = Rerun(text=("bundled",), tokens=256, generate=("The surgeons near the jackets",))
    record = rerun_edit(cut, rerun, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "result.json").read_text())
    assert kept == json.loads(json.dumps(record))
    assert kept["text"]["tokens"] == 2 * 127
    assert kept["text"]["kl"]["value"] > 0
    other = Rerun(text=("bundled",), tokens=128)
    with pytest.raises(ValueError, match="made from something else"):
        rerun_edit(cut, other, tmp_path / "out")
    assert rerun_edit(cut, other, tmp_path / "out", force=True)["text"]["tokens"] == 127


def test_a_rerun_of_nothing_is_refused():
    with pytest.raises(ValueError, match="--prompts, --text, --generate or --side-effects"):
        Rerun()
