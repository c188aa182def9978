"""How many features a task needs, as a folder."""

import json

from circuits.prompt_files import prompt_lines
from circuits.runs.prompt_sets import one_prompt
from circuits.runs.sufficiency_run import FIGURES as SCORES
from circuits.runs.sufficiency_run import RECORD
from tests.circuits.conftest import call

PAIRS = [
    one_prompt(f"The {a}s by the bucket", f"The {a} by the bucket", [" are"], [" is"])
    for a in ("judge", "boy")
]


def test_scores_by_kept_features_are_written_with_their_figure(tmp_path, fails):
    prompts, out = tmp_path / "one.jsonl", tmp_path / "out"
    prompts.write_text(prompt_lines(PAIRS))
    asked = ("sufficiency", prompts, "--out", out, "--layers", "3-4", "--sizes", "1, 3")
    asked += ("--estimator", "patching", "--draws", 1)
    done = call(*asked, "--metric", "probability-difference", "--to", "zero")
    assert done.exit_code == 0, done.output
    record = json.loads((out / RECORD).read_text())
    assert (record["layers"], record["to"], record["errors"]) == ([3, 4], "zero", "out")
    assert record["sizes"][:2] == [1, 3]
    assert f"the model {record['model']['score']:#.3g}" in " ".join(done.output.split())
    for name in SCORES:
        assert (out / name).stat().st_size > 1000
    text = (out / SCORES[0]).read_text()
    assert all(word in text for word in ("strongest features", "all features", "features kept"))
    assert "made from something else" in fails(*asked, "--to", "zero")
    assert "expected numbers of features, such as 1,5,20" in fails(*asked[:6], "--sizes", "few")
    assert "layers 0 to 4" in fails(*asked[:4], "--layers", "9", "--force")
