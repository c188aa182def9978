"""`circuits verify`, `ablate` and `compare`: what is refused before a model is read."""

import pytest

from circuits.graph import save
from tests.circuits import synthetic
from tests.circuits.conftest import call


@pytest.mark.parametrize(
    "asked", [(), ("--top", 3, "--outside"), ("--features", "mlp_out.0/1", "--top", 1)]
)
def test_one_option_says_what_to_ablate(tmp_path, fails, asked):
    said = fails("ablate", tmp_path, *asked)
    assert "say what to ablate with one of --features, --top or --outside" in said


def test_what_is_no_run_says_how_to_make_one(tmp_path, fails):
    for verb in (("verify", tmp_path), ("ablate", tmp_path, "--top", 1)):
        assert "is not a finished run: no manifest.json" in fails(*verb)


def test_two_graphs_are_compared_as_files_and_as_many_rows_are_printed(tmp_path, fails):
    one, other = tmp_path / "a.json", tmp_path / "b.json"
    graph = synthetic.circuit(20)
    save(graph, one)
    for node in [n for n, data in graph.nodes(data=True) if data["effect"]][:3]:
        graph.nodes[node]["effect"] += 5.0
    save(graph, other)
    page = tmp_path / "page.html"
    done = call("compare", one, other, "--out", page, "--rows", 2)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "3 changed" in said
    assert said.count("-5.0000") == 2
    assert "<html" in page.read_text(encoding="utf-8")
    assert "--rows is 0: expected 1 or more" in fails("compare", one, other, "--rows", 0)
