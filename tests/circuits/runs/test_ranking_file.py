"""`ranking.json`: every node with its effect comes back, whatever is read and written at once."""

import json

import pytest

from circuits.attribution.node_effects import NodeEffects
from circuits.graph import Node
from circuits.runs.ranking_file import read_ranking, write_ranking

NAMES = ["embed", "mlp_out.0", "resid_post.1"]
ROWS = [
    (Node("mlp_out.0", 5, 2), -3.25),
    (Node("resid_post.1", "error", 0), 2.5),
    (Node("resid_post.1", 19), -1e-6),
    (Node("embed", "token", 1), 0.125),
    (Node("mlp_out.0", 0, 11), 0.0),
]


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_what_is_written_is_read(tmp_path, small_chunks, n, at_once):
    small_chunks("circuits.runs.ranking_file.AT_ONCE", at_once)
    path = tmp_path / "ranking.json"
    write_ranking(NodeEffects.listed(NAMES, ROWS[:n]), path)
    found = read_ranking(path)
    assert list(found) == ROWS[:n]
    assert list(found.names) == NAMES
    # It is JSON as a whole too.
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [Node.parse(node) for node, _ in record["nodes"]] == [node for node, _ in ROWS[:n]]


@pytest.mark.parametrize(
    "content", [None, "", "{}", '{"names": ["a"]', '{"names": [], "nodes": [\n["x"]\n]}']
)
def test_what_is_no_ranking_says_what_to_do(tmp_path, content):
    path = tmp_path / "ranking.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"ranking\.json is missing, damaged, .*: run `circuits disc"
    ):
        read_ranking(path)
