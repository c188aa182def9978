"""A saved state is read back as it was written, and another file is refused in one line."""

import json

import pytest

from circuits.graph import Node
from circuits.saved_state import SavedState, as_json, read_state
from hooked_qwen.notices import Notice
from tests.circuits import synthetic


@pytest.fixture
def graph():
    return synthetic.circuit(20)


@pytest.fixture
def written(tmp_path):
    def write(record):
        path = tmp_path / "state.json"
        path.write_text(record if isinstance(record, str) else json.dumps(record))
        return path

    return write


def test_a_state_comes_back_as_it_was(graph, written):
    one, two, *_ = [node for node in graph if node.kind == "feature"]
    output = Node("logit", " are")
    state = SavedState(
        pinned=(one, output),
        groups={'plural "nouns"': (one, two)},
        collapsed=('plural "nouns"',),
        labels={one: "複数 <b>", output: "are"},
        notes={two: "line\nline"},
        places={str(one): (-12.5, 40.0), 'group/plural "nouns"': (0.0, 0.25)},
    )
    assert read_state(written(as_json(state)), graph) == state


def test_missing_parts_are_empty(graph, written):
    assert read_state(written({"schema": "circuits-state/1"}), graph) == SavedState()


def test_what_the_graph_lacks_is_told_once_and_left_out(graph, written):
    known = next(n for n in graph if n.kind == "feature")
    gone, also_gone = Node("mlp_out.77", 5, 1), Node("mlp_out.77", 6, 1)
    state = SavedState(
        pinned=(gone, known),
        groups={"a": (known, gone), "b": (also_gone,)},
        collapsed=("b", "a"),
        labels={gone: "x"},
        notes={gone: "y"},
        places={
            str(gone): (1.0, 2.0),
            str(known): (3.0, 4.0),
            "group/b": (5.0, 6.0),
            "group/a": (7.0, 8.0),
        },
    )
    with pytest.warns(Notice, match="lacks 2 names of the saved state, left out: mlp_out.77/5@1"):
        read = read_state(written(as_json(state)), graph)
    assert read == SavedState(
        pinned=(known,),
        groups={"a": (known,)},
        collapsed=("a",),
        places={str(known): (3.0, 4.0), "group/a": (7.0, 8.0)},
    )


def test_a_state_without_places_is_written_as_readers_of_before_know_it(graph):
    assert "places" not in as_json(SavedState(pinned=(next(iter(graph)),)))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "Expecting property name"),
        ([], "its schema is 'list', expected 'circuits-state/1'"),
        ({"groups": {}}, "its schema is None, expected 'circuits-state/1'"),
        ({"groups": []}, r"'groups' is \[\], expected an object"),
        ({"groups": {"a": "b"}}, "group 'a' is 'b', expected a list of texts"),
        ({"pinned": [3]}, "'pinned' holds 3, expected text"),
        ({"pinned": ["nonsense"]}, "no node is called 'nonsense'"),
        ({"labels": {"token@1": 3}}, "'labels' holds 3, expected text"),
        ({"places": {"token@1": [1, "2"]}}, r"place of 'token@1' is \[1, '2'\], expected two"),
        ({"places": {"token@1": [1, float("nan")]}}, "expected two numbers"),
        ({"places": {"nonsense": [1, 2]}}, "no node is called 'nonsense'"),
        ({"groups": {"a": ["token@1"], "b": ["token@1"]}}, "token@1 is in the groups 'a' and 'b'"),
    ],
)
def test_another_file_is_refused_in_one_line(graph, written, record, says):
    if isinstance(record, dict) and not says.startswith("its schema"):
        record = {"schema": "circuits-state/1"} | record
    path = written(record)
    with pytest.raises(ValueError, match=says) as refused:
        read_state(path, graph)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(graph, tmp_path):
    with pytest.raises(ValueError, match="cannot read a saved state from .*absent.json"):
        read_state(tmp_path / "absent.json", graph)
