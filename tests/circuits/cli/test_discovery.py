"""`circuits discover`: what is refused before anything is read."""

import json

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "few"), "--nodes is 'few': expected a number, or 'all'"),
        (("--nodes", "all"), "all nodes are kept of a replacement graph only"),
        (("--wrong", " is"), "--patch, --answer and --wrong go with --clean; a file has its own"),
        (("--clean", "The keys"), "say which prompts: a file, or one with --clean (not both)"),
        (("--metric", "beauty"), "no metric is called 'beauty': expected logit-diff"),
        (("--device", "cuda:77"), "no device 'cuda:77' here"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line_and_writes_nothing(tmp_path, fails, options, message):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"clean": "The keys", "answer": " are", "wrong": " is"}))
    assert message in fails("discover", prompts, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_without_prompts_it_is_said_how_they_are_given(tmp_path, fails):
    assert "say which prompts: a file, or one with --clean" in fails(
        "discover", "--out", tmp_path / "run"
    )
