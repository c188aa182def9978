"""Models trained in turn from the same start, each judged alike."""

import json

import pytest

from circuits.runs.trained import (
    TrainedConfig,
    compared,
    in_turn,
    nodes_asked,
    notify_of_no_behaviour,
    side_by_side,
    write_trained,
)
from circuits.runs.tuning_case import StartingModel
from hooked_qwen.load import load_tokenizer
from hooked_qwen.nodes import Node
from hooked_qwen.notices import Notice
from hooked_qwen.placement import ANYWHERE
from saes.scope.tuned_model import Judge, WriteConfig
from saes.suite import load_suite
from tests.circuits.conftest import call

FEATURE = "resid_post.3/86"


def test_progress_says_which_model_is_trained_or_judged(tmp_path):
    told = []
    start = StartingModel(source="bundled", placement=ANYWHERE, rank=None, seed=0)
    judge = Judge(
        tokenizer=load_tokenizer("bundled"),
        suite=load_suite("bundled"),
        prompts=["The boys"],
        behaviour=len,
        clean={},
        features={},
        write=WriteConfig(tokens=1, samples=1),
    )

    def trained(model, report):
        report("training", 12, 40, "loss 1")
        return []

    arms = {"chosen features": trained}
    in_turn(start, arms, judge, "", tmp_path, lambda *now: told.append(now))
    assert told == [
        ("training, chosen features", 12, 40, "loss 1"),
        ("writing, chosen features", 1, 1, ""),
    ]


@pytest.mark.filterwarnings("error")
def test_of_a_behaviour_that_no_model_shows_nothing_is_concluded():
    none = {"before": {"by_prompt": [0.0, 0.0]}, "lambda 0": {"by_prompt": [0.0, 0.0]}}
    with pytest.warns(Notice, match="no model shows any of the behaviour"):
        notify_of_no_behaviour(none)
    notify_of_no_behaviour({**none, "lambda 0": {"by_prompt": [0.0, 0.1]}})


def test_features_come_from_a_search_too(tmp_path):
    found = tmp_path / "found.json"
    done = call("features", "search", "bundled", "--token", " sit", "--out", found)
    assert done.exit_code == 0, done.output
    first = [one["feature"] for one in json.loads(found.read_text())["found"][:2]]
    nodes = nodes_asked([FEATURE], found, 2)
    assert nodes == tuple(dict.fromkeys(map(Node.parse, [FEATURE, *first])))
    found.write_text("{}")
    with pytest.raises(ValueError, match="is no list of features"):
        nodes_asked([], found, 2)


ARMS = {
    "before": {"by_prompt": [0.0, 0.5]},
    "lambda 0": {"by_prompt": [0.5, 0.5]},
    "chosen features": {"by_prompt": [1.0, 0.5]},
}


def test_every_arm_is_held_against_the_one_without_features_and_against_before():
    found = side_by_side(ARMS)["against"]
    assert list(found) == ["lambda 0", "before"]
    assert list(found["lambda 0"]) == ["chosen features"]
    assert list(found["before"]) == ["lambda 0", "chosen features"]
    assert found["before"] == compared(ARMS, "before", ["lambda 0", "chosen features"])
    assert found["lambda 0"]["chosen features"]["mean"] == 0.25


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "the rank is 0: expected at least 1"),
        ({"longest": 7}, "longest is 7: expected at least 8"),
        ({"texts": 1}, "texts is 1: expected at least 2"),
    ],
)
def test_what_is_trained_is_within_range(given, message):
    with pytest.raises(ValueError, match=message):
        TrainedConfig(**given)


@pytest.mark.parametrize("record", [[], {"found": 3}, {"found": [{"site": "x"}]}])
def test_a_file_that_is_no_list_of_features_is_told(tmp_path, record):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is no list of features: expected what `circuits feat"):
        nodes_asked([], path, 2)


def test_a_folder_of_something_else_stays(tmp_path):
    def write(out, **more):
        return write_trained(out, "tune/1", {"rank": 2}, {}, lambda folder: {}, force=False, **more)

    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="is there already and holds something else: choose"):
        write(tmp_path)
    with pytest.raises(ValueError, match="is a file: give a folder"):
        write(tmp_path / "mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tune.json").write_text(json.dumps({"made_from": {"rank": 3}}))
    with pytest.raises(ValueError, match="is there already, made from something else"):
        write(tmp_path / "out")
