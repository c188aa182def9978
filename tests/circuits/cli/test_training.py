"""`circuits train` and `cache`: what is refused before a model is read."""

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "there is nothing to train on: give --text, or --cache"),
        (("--text", "bundled", "--tokens", 0), "--tokens is 0: expected 1 or more"),
        (("--text", "bundled", "--k", -1), "--k is -1: expected 0 or more"),
        (("--text", "bundled", "--layers", "9"), "layers 0 to 4"),
        (("--text", "absent.txt"), "there is no text at"),
        (("--text", "bundled", "--device", "cuda:77"), "no device 'cuda:77' here"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_writes_nothing(tmp_path, fails, options, message):
    assert message in fails("train", "saes", *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_for_dictionaries(tmp_path, fails):
    (tmp_path / "out").write_text("mine")
    fails("train", "saes", "--text", "bundled", "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
