"""Which features are cut: the written rule, and what files say."""

import json

import pytest

from circuits.attribution.node_effects import NodeEffects
from circuits.shift.judging import (
    by_file,
    by_rule,
    circuit_features,
    cut_nodes,
    read_judgements,
    save_judgements,
)
from hooked_qwen.nodes import Node

NAMES = ("resid_post.0", "resid_post.1")
A, B, C = Node("resid_post.0", 1), Node("resid_post.0", 2), Node("resid_post.1", 3)
ERROR = Node("resid_post.1", "error")


def effects(*pairs):
    return NodeEffects.listed(NAMES, pairs)


LABEL = effects((A, -4.0), (ERROR, 3.0), (B, -3.0), (C, -1.0))
SPURIOUS = effects((A, 0.1), (B, -0.5), (ERROR, 9.0))


def test_a_feature_is_cut_by_its_share_of_both_probes():
    """Of the label's effects A has a half, B three eighths; of the spurious a sixth, and more."""
    features = circuit_features(LABEL, SPURIOUS, 3)
    assert [f.node for f in features] == [A, B, C]
    assert [f.spurious for f in features] == [0.1, -0.5, 0.0]
    judged = by_rule(features, LABEL, SPURIOUS)
    assert cut_nodes(judged) == (B,)
    assert judged[1].reason == (
        "83.33% of the spurious probe's effect, 37.50% of the label's, same sign"
    )
    assert [f.node for f in circuit_features(LABEL, SPURIOUS, 1)] == [A]


def test_a_feature_that_moves_the_probes_opposite_ways_is_kept():
    """The signals agree in the texts: a feature of the spurious one moves both the same way."""
    other_way = effects((A, 0.1), (B, 0.5), (ERROR, 9.0))
    judged = by_rule(circuit_features(LABEL, other_way, 3), LABEL, other_way)
    assert cut_nodes(judged) == ()
    assert judged[1].reason.endswith("not the same sign")


def test_without_texts_of_the_spurious_signal_there_is_no_rule():
    features = circuit_features(LABEL, None, 3)
    assert features[0].spurious is None
    with pytest.raises(ValueError, match="judge by a file"):
        by_rule(features, LABEL, None)


def test_what_was_judged_is_saved_and_read_back(tmp_path):
    path = tmp_path / "judgements.json"
    judged = by_rule(circuit_features(LABEL, SPURIOUS, 3), LABEL, SPURIOUS)
    save_judgements(judged[:2], path)
    again = by_file(circuit_features(LABEL, None, 3), read_judgements(path))
    assert cut_nodes(again) == (B,)
    assert [f.cut for f in again] == [False, True, None]
    assert again[1].reason == judged[1].reason
    assert again[1].by == "file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "holds no judgements"),
        ("{}", "holds no judgements"),
        (json.dumps({"features": [{"node": "resid_post.0/1"}]}), "holds no judgements"),
        (json.dumps({"features": [{"node": "resid_post.0/1", "cut": "yes"}]}), "is 'yes', not tr"),
    ],
)
def test_a_file_that_judges_nothing_is_one_line(tmp_path, text, message):
    path = tmp_path / "judgements.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_judgements(path)
    with pytest.raises(ValueError, match="there are no judgements at"):
        read_judgements(tmp_path / "gone.json")
