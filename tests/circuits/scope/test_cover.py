"""Coverage of sets of samples as the command finds and writes it."""

import json

import pytest

from circuits import scope
from circuits.scope.cover import FIGURES, RECORD
from tests.circuits.conftest import call
from tests.circuits.features.test_coverage import write


def test_the_command_writes_what_it_shows(tmp_path, fails):
    out = tmp_path / "out"
    texts = write(tmp_path / "mine.jsonl", [{"text": f"The {n}s sit."} for n in ("boy", "judge")])
    results = write(
        tmp_path / "results.jsonl",
        [
            {"set": "mine", "item": i, "model": str(m), "correct": m > i}
            for i in range(2) for m in range(3)
        ],
    )  # fmt: skip
    asked = ["cover", "bundled", "agreement_simple", "ioi", texts, "--out", out, "--texts", 8]
    done = call(*asked, "--results", results, "--common", texts, "--common-share", 0.6)
    assert done.exit_code == 0, done.output
    assert "untrained dictionaries" in done.output
    record = json.loads((out / RECORD).read_text())
    assert record["sets"] == ["agreement_simple", "ioi", "mine"]
    assert record["common"] == {"texts": 2, "share": 0.6}
    assert all((out / name).stat().st_size > 1000 for name in FIGURES)
    assert "\n\ntokens" in done.output
    assert "larger --common-share" not in done.output
    assert "made from something else" in fails(*asked)
    assert "--texts is 0: expected 1 or more" in fails(*asked[:-1], 0)
    assert "is a file: give a folder" in fails(*asked[:6], texts)


def test_where_common_texts_leave_hardly_any_feature_it_is_said(tmp_path):
    texts = write(tmp_path / "mine.jsonl", [{"text": f"The {n}s sit."} for n in ("boy", "judge")])
    out = tmp_path / "out"
    done = call("cover", "bundled", texts, "--common", texts, "--out", out, "--texts", 2)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "only 0 of mine are left beside the common texts" in said
    assert "larger --common-share (now 0)" in said


def test_a_common_text_that_is_too_long_counts_as_its_lines(tmp_path):
    common = tmp_path / "common.txt"
    common.write_text("The boy saw a dog.\n\n" * 150)
    record = scope.cover("bundled", ["capital_of"], common=[str(common)], texts=2)
    assert record["common"]["texts"] == 2
    common.write_text("The boy saw a dog.\nThe girl read.")
    record = scope.cover("bundled", ["capital_of"], common=[str(common)], texts=2)
    assert record["common"]["texts"] == 1


def test_what_cannot_be_covered_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file: give a folder"):
        scope.cover("nowhere", ["ioi"], "bundled", out=tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text("{}")
    with pytest.raises(ValueError, match="is there already, made from something else"):
        scope.cover("bundled", ["ioi"], texts=2, out=tmp_path / "out")
