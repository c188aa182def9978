"""`circuits edit make` and `show`: what is asked for in words, and what is none of them."""

import pytest

from saes.edit_file import Edit
from tests.circuits.conftest import call

MADE = ("edit", "make", "--features", "resid_post.3/5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--do", "set", "--value", "x"), "--value is 'x': expected a number, or LOW,HIGH"),
        (("--do", "clamp", "--value", "1,2,3"), "--value is '1,2,3': expected a number, or LOW,"),
        (("--do", "set", "--value", "nan"), "has the value nan: expected finite numbers"),
        (("--do", "clamp", "--value", "0,inf"), "has the value (0.0, inf): expected finite number"),
        (("--positions", "early"), "--positions is 'early': expected all, prompt, generated, last"),
        (("--positions", "0,-1"), "or numbers of tokens counted from 0, such as 0,3"),
        (("--when", "x"), "--when is 'x': expected such as 'resid_post.2/7>0.5'"),
        (("--when", "resid_post.2/7>nan"), "--when is 'resid_post.2/7>nan'"),
        (("--invert", "edit.json"), "--compose and --invert take edits and nothing else"),
    ],
)
def test_what_is_no_edit_is_one_line_and_writes_nothing(tmp_path, fails, options, message):
    assert message in fails(*MADE, *options, "--out", tmp_path / "edit.json")
    assert not (tmp_path / "edit.json").exists()


def test_numbers_of_tokens_conditions_and_two_ends_are_read(tmp_path):
    options = ("--do", "clamp", "--value", "-1,2.5", "--positions", "0, 3")
    done = call(*MADE, *options, "--when", "resid_post.2/7 > 0.5", "--out", tmp_path / "edit.json")
    assert done.exit_code == 0, done.output
    (operation,) = Edit.load(tmp_path / "edit.json").operations
    assert (operation.value, operation.positions) == ((-1.0, 2.5), (0, 3))
    assert (str(operation.when.node), operation.when.above) == ("resid_post.2/7", 0.5)


def test_as_many_operations_are_listed_as_asked_for(tmp_path, fails):
    path = tmp_path / "edit.json"
    features = "resid_post.3/5,resid_post.3/6"
    assert call("edit", "make", "--features", features, "--out", path).exit_code == 0
    assert "resid_post.3/6" in call("edit", "show", path).output
    assert "resid_post.3/6" not in call("edit", "show", path, "--rows", 1).output
    assert "--rows is -1: expected 0 or more" in fails("edit", "show", path, "--rows", -1)
