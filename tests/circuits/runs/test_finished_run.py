"""A finished run, read back and opened again: what it is held against, and what is refused."""

import dataclasses
import json
import shutil

import pytest

from circuits.runs.finished_run import check_finished, read_run
from hooked_qwen.bundled import PATH
from hooked_qwen.files import content_hash
from hooked_qwen.notices import Notice
from hooked_qwen.placement import Placement
from saes.suite import pinned


def test_a_run_of_another_model_is_not_gone_on_with(run):
    assert read_run(run).open()
    change(run / "manifest.json", model_hash="0" * 16)
    with pytest.raises(ValueError, match=r"the model at .* changed since .* run `circuits discov"):
        read_run(run).open()


@pytest.mark.parametrize("recorded", [None, content_hash(PATH)])
def test_a_run_that_knows_its_model_by_its_files_is_opened(run, recorded):
    change(run / "manifest.json", model_hash=recorded)
    assert read_run(run).open()


def test_a_run_of_another_tokenizer_is_not_gone_on_with(run):
    meta = json.loads((run / "graph.json").read_text(encoding="utf-8"))["meta"]
    change(run / "graph.json", meta=meta | {"tokens_hash": "0" * 16})
    with pytest.raises(ValueError, match="the tokenizer of the model at .* changed since"):
        read_run(run).open()


def test_a_run_from_before_prompts_began_with_a_token_stays_as_it_was(run):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"].pop("bos") == "auto"
    assert manifest["begins_with"] == []
    change(run / "manifest.json", config=manifest["config"])
    assert read_run(run).config.bos == "never"


@pytest.fixture
def run(small_run, tmp_path):
    return shutil.copytree(small_run[0] / "run", tmp_path / "run")


def change(path, **fields):
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | fields), encoding="utf-8")


def test_what_the_run_was_made_with_is_what_is_read(small_run, run):
    found = read_run(run)
    assert (found.seed, found.imported, found.inputs.mlp) == (5, None, "sae")
    assert (found.config.estimator, found.config.nodes) == ("patching", 5)
    assert (found.placement.device, found.placement.dtype) == ("cpu", "float32")
    assert found.inputs.dictionaries == pinned("bundled")
    assert set(found.graph) == set(small_run[1].graph)


def test_prompts_that_have_changed_since_are_told(run):
    change(run / "manifest.json", prompts_hash="0" * 16)
    with pytest.raises(ValueError, match="the prompts at .* changed since .* was made: run"):
        read_run(run).open()


def test_another_precision_and_a_device_that_is_not_here_are_said(run):
    found = read_run(run)
    assert found.placed(Placement(memory=2.0)) == Placement(
        device="cpu", dtype="float32", memory=2.0
    )
    with pytest.warns(Notice, match="with the model in float32, and is held against the model in"):
        assert found.placed(Placement(dtype="bfloat16")).dtype == "bfloat16"
    elsewhere = dataclasses.replace(found, placement=Placement(device="cuda:9", dtype="float32"))
    with pytest.warns(Notice, match="was found on cuda:9, which is not here: computing on another"):
        assert elsewhere.placed(Placement()).device == "auto"


def test_a_graph_of_another_program_has_no_model_and_dictionaries_only_where_they_are_named(run):
    found = dataclasses.replace(read_run(run), imported="austin.json")
    found.check_has(model=False)
    with pytest.raises(ValueError, match="the model and prompt it was found with are not in that"):
        found.check_has(model=True)
    without = dataclasses.replace(found.inputs, dictionaries="")
    with pytest.raises(ValueError, match="its dictionaries are not in that file: it can be drawn"):
        dataclasses.replace(found, inputs=without).check_has(model=False)


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="is not a finished run: no manifest.json"):
        check_finished(tmp_path)
