"""The model and the dictionaries that a verb is given, opened; what its record is made from."""

import json
import shutil

from circuits.opening import load_model, sources
from hooked_qwen.bundled import DICTIONARIES
from hooked_qwen.placement import Placement
from saes.formats import ours

NAME = "mlp_out.2"


def test_loading_is_told_and_in_the_precision_asked_for():
    told = []
    model = load_model(
        "bundled",
        lambda what, done, total: told.append((what, done, total)),
        Placement(device="cpu", dtype="bfloat16"),
    )
    assert told == [("loading", 0, 1), ("loading", 1, 1)]
    assert {str(p.dtype) for p in model.original_model.parameters()} == {"torch.bfloat16"}


def test_sources_are_the_same_for_the_same_content_wherever_it_lies(tmp_path):
    suite = tmp_path / "suite"
    shutil.copytree(DICTIONARIES / NAME, suite / NAME)
    ours.save_suite_index(suite, [NAME])
    first = sources(str(suite), "bundled", ["a"], tokens=3)
    copied = shutil.copytree(suite, tmp_path / "copy")
    assert sources(str(copied), "bundled", ("a",), tokens=3) == first
    others = [
        sources(str(suite), "bundled", ["a"], tokens=4),
        sources(str(suite), "bundled", ["a", "b"], tokens=3),
        sources(str(suite), "bundled", ["a"], Placement(dtype="bfloat16"), tokens=3),
    ]
    record = copied / NAME / "dictionary.json"
    record.write_text(record.read_text() + "\n")
    others.append(sources(str(copied), "bundled", ["a"], tokens=3))
    assert all(other != first for other in others)
    assert json.loads(json.dumps(first)) == first
