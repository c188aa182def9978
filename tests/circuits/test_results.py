"""What each step gives in a notebook: its tables are those of its record."""

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.results import Circuit, Sufficiency, Verification
from tests.toys import analysis_of, found_and_verified, shared_toy, toy_prompts, toy_suite

CASE = shared_toy, lambda: toy_suite("mlp_out.0", "resid_post.1"), toy_prompts


@pytest.fixture(scope="module")
def made():
    model, suite, prompts = (make() for make in CASE)
    config = DiscoverConfig(nodes=8, steps=1)
    found, record = found_and_verified(model, suite, prompts, config)
    analysis = analysis_of(model, suite, prompts, nodes=8, steps=1)
    return Circuit(analysis, found.graph, found.ranking), Verification(record)


def test_tables_have_every_node_and_edge_the_strongest_first(made):
    circuit, _ = made
    assert set(circuit.nodes.index) == {str(node) for node in circuit.graph}
    inner = circuit.nodes.query("kind != 'logit'")["effect"]
    assert inner.abs().is_monotonic_decreasing
    assert len(circuit.edges) == circuit.graph.number_of_edges()
    n, m = circuit.graph.number_of_nodes(), circuit.graph.number_of_edges()
    assert repr(circuit).startswith(f"Circuit of {n} nodes and {m} edges")


def test_a_verification_s_tables_are_its_record_s(made):
    _, checked = made
    curves = checked.record["curves"]
    assert list(checked.faithfulness.columns) == curves["sizes"]
    for name, row in curves["rows"].items():
        assert checked.faithfulness.loc[name].tolist() == pytest.approx(row["faithfulness"])
    nodes = checked.record["nodes"]
    assert checked.agreement.loc["nodes"].to_dict() == pytest.approx(
        {name: nodes[name] for name in ("n", "spearman", "slope", "sign_agreement")}, nan_ok=True
    )
    assert not any("points" in name for name in checked.agreement.index)
    assert f"{curves['margin']['size']} nodes keep" in repr(checked)


def test_sufficiency_has_a_row_for_features_and_each_control():
    rows = {"features": [0.1, 0.9], "neurons": [0.0, 0.2]}
    record = {
        "metric": "logit-difference",
        "sizes": [1, 4],
        "rows": {name: {"score": score} for name, score in rows.items()},
        **{name: {"score": i} for i, name in enumerate(("nothing", "replaced", "model"))},
    }
    found = Sufficiency(record)
    assert found.scores.loc["features", 4] == 0.9
    assert found.scores.columns.tolist() == [1, 4]
    assert repr(found) == (
        "Sufficiency: logit-difference 2.00, 1.00 with all features of the transcoders, 0.00 with "
        "none"
    )
    assert "<table" in found._repr_html_()
