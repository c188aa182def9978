"""What `circuits synthesise` prints, and how a server is named."""

from circuits.cli.synthesise import asked_table, synthesis_table
from tests.circuits.printed import printed


def test_features_that_are_not_shown_are_counted():
    one = {"feature": "a/1", "label": "", "target_texts": 1, "written": 1, "fired": 1,
           "asked_as": "fact"}  # fmt: skip
    record = {"asked": [one] * 20, "missing": 30, "target_features": 40}
    said = " ".join(printed(asked_table, record).split())
    assert "20 were asked for, the other 10 are in the record" in said


def test_a_label_in_brackets_is_shown_as_it_is():
    one = {"feature": "a/1", "label": "", "target_texts": 1, "written": 1, "fired": 1}
    record = {"asked": [one | {"asked_as": label} for label in ("[neg]", "[/neg]")],
              "missing": 2, "target_features": 4}  # fmt: skip
    said = printed(asked_table, record)
    assert "[neg]" in said
    assert "[/neg]" in said


def test_training_alone_is_not_ahead_of_itself():
    score = {"accuracy": 0.5, "ahead_interval": [-0.1, 0.2]}
    row = {"texts": 3.0, "covered": 0.5, "asked_covered": 0.25, "fired": None, "shared": None,
           "cosine": 0.5, "shown": None, "scores": {"stream": score, "words": score}}  # fmt: skip
    record = {"rows": {"training alone": row, "features asked for": row}}
    lines = printed(synthesis_table, record).splitlines()
    alone, asked = [line.split() for line in lines if "50.0" in line]
    assert alone.count("–") == 2
    assert asked.count("-10.0") == asked.count("+20.0") == 2
    without = {"rows": {"training alone": row | {"scores": None}}}
    assert "accuracy in %" not in printed(synthesis_table, without)
