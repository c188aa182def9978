"""`circuits convert`: which options go together."""

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "or --map FILE or --try, to make dictionaries of any layout ours: got neither"),
        (("--to", "saelens", "--try"), "to make dictionaries of any layout ours: got both"),
        (("--map", "a.yaml", "--only", "sae"), "--only goes with --to: a map names the files"),
        (("--try", "--tokens", 5), "--tokens is 5: expected 128 or more"),
        (("--to", "saelens", "--text", "bundled"), "--text and --model go with --map or --try"),
    ],
)
def test_options_that_do_not_go_together_are_told(tmp_path, fails, options, message):
    assert message in fails("convert", "bundled", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_stays(tmp_path, fails):
    (tmp_path / "notes.txt").write_text("mine")
    said = fails("convert", "bundled", tmp_path, "--to", "saelens", "--only", "sae")
    assert "is not empty: choose another --out, or remove it first" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
