"""Two graphs merged into one."""

from circuits.comparison import differences
from circuits.graph import Node
from circuits.render.pages.circuit.compare_page import merge
from tests.circuits.test_comparison import graph


def test_merging_moves_the_shorter_prompt_to_the_right():
    a = graph({"mlp_out.1/1@1": -1.0}, [" old", " keys"])
    b = graph({"mlp_out.1/2@0": 0.5, "mlp_out.1/1@2": -1.0}, ["The", " new", " keys"])
    merged = merge(a, b, differences(a, b))
    assert set(map(str, merged)) == {"mlp_out.1/1@2", "mlp_out.1/2@0"}
    assert merged.graph["columns"] == ["The", " old | new", " keys"]


def test_merged_edges_say_where_they_are():
    names = ["mlp_out.0/1", "mlp_out.1/1", "mlp_out.2/1"]
    a, b = (graph(dict.fromkeys(names, 1.0)) for _ in range(2))
    first, second, third = map(Node.parse, names)
    a.add_edge(first, second, weight=0.5)
    a.add_edge(second, third, weight=0.1)
    b.add_edge(second, third, weight=-0.2)
    b.add_edge(first, third, weight=0.3)
    merged = merge(a, b, differences(a, b))
    shown = {edge: merged.edges[edge]["shown"] for edge in merged.edges}
    assert shown[first, second] == {"group": "only-a", "support": -0.5}
    assert shown[second, third] == {"group": "changed", "support": 0.2}
    assert shown[first, third] == {"group": "only-b", "support": -0.3}
