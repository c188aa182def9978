"""What a run is made from: named, hashed, and opened where it fits together."""

import dataclasses
import json

import pytest
import torch

from circuits.discovery.config import DiscoverConfig
from circuits.runs.inputs import Inputs, open_inputs
from hooked_qwen.bundled import PATH
from hooked_qwen.files import content_hash
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats import ours
from saes.suite import pinned
from tests.circuits.runs.pair import PAIR


def wide(*specs, width=128):
    """Dictionaries of the bundled model's width, of zeros."""
    made = []
    for source, target in specs:
        spec = DictionarySpec(source=Site.parse(source), target=Site.parse(target), k=2)
        shapes = {"W_enc": (4, width), "b_enc": (4,), "W_dec": (4, width), "b_dec": (width,)}
        made.append(SparseDictionary(spec, {n: torch.zeros(s) for n, s in shapes.items()}))
    return made


def test_local_paths_are_resolved_and_hub_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Inputs.resolved(str(PATH), "bundled", "prompts.jsonl", unfit="skip")
    assert found.model == str(PATH.resolve())
    assert found.dictionaries == pinned("bundled")
    assert (found.prompts, found.unfit) == (str(tmp_path / "prompts.jsonl"), "skip")
    assert Inputs.resolved("org/name", "bundled", "p.jsonl").model == "org/name"


def test_prompts_are_known_by_their_content_and_those_that_are_no_file_by_nothing(tmp_path):
    path = tmp_path / "prompts.jsonl"
    inputs = Inputs.resolved("bundled", "bundled", path)
    assert inputs.hashes()["prompts_hash"] is None
    path.write_text("{}")
    assert inputs.hashes()["prompts_hash"] == content_hash(path)


@pytest.mark.parametrize(
    ("name", "value"), [("model", "other"), ("dictionaries", "d"), ("mlp", "transcoder")]
)
def test_runs_of_another_model_or_of_other_dictionaries_are_not_compared(name, value):
    one = Inputs(model="m", dictionaries="bundled", prompts="a")
    one.check_same(dataclasses.replace(one, prompts="b"))
    other = dataclasses.replace(one, **{name: value})
    with pytest.raises(ValueError, match=f"the runs are not of the same {name}: {value} and "):
        one.check_same(other)


@pytest.mark.parametrize(
    ("specs", "width", "message"),
    [
        (
            [("resid_mid.1", "resid_mid.1"), ("resid_mid.1", "mlp_out.1")],
            128,
            "resid_mid.1 is written by one dictionary and read by that of mlp_out.1: a graph needs",
        ),
        ([("mlp_out.7", "mlp_out.7")], 128, "is for a deeper model: .* has layers 0 to 4"),
        ([("mlp_out.1", "mlp_out.1")], 64, "the model is 128 wide"),
    ],
)
def test_dictionaries_that_do_not_fit_are_told(tmp_path, specs, width, message):
    ours.save(wide(*specs, width=width), tmp_path / "dictionaries")
    inputs = Inputs.resolved("bundled", str(tmp_path / "dictionaries"), tmp_path / "p.jsonl")
    with pytest.raises(ValueError, match=message):
        open_inputs(inputs, DiscoverConfig(), [PAIR])


def test_a_run_beside_another_shares_its_model_and_other_prompts_are_lined_up(tmp_path):
    inputs = Inputs.resolved("bundled", "bundled", tmp_path / "p.jsonl")
    first = open_inputs(inputs, DiscoverConfig(), [PAIR])
    second = open_inputs(inputs, DiscoverConfig(nodes=3), [PAIR], beside=first)
    assert second.analysis.model is first.analysis.model
    assert second.analysis.suite is first.analysis.suite
    row = {"clean": "The kings near the jacket", "answer": " are", "wrong": " is"}
    (tmp_path / "others.jsonl").write_text(json.dumps(row))
    others = first.others(tmp_path / "others.jsonl")
    assert others.clean.tokens.shape == first.analysis.prompts.clean.tokens.shape
    with pytest.raises(ValueError, match="not of the same mlp"):
        open_inputs(
            dataclasses.replace(inputs, mlp="transcoder"), DiscoverConfig(), [PAIR], beside=first
        )
