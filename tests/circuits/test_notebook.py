"""The whole job from Python: `import circuits`, and a call for each step."""

import json
import subprocess
import sys

import networkx as nx
import pytest

import circuits
from circuits.discovery.config import DiscoverConfig
from circuits.runs.commands import discover_run, verify_run
from circuits.runs.inputs import Inputs
from circuits.verification.verify import VerifyConfig

FEW = {"nodes": 20, "steps": 2}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    made = circuits.make_prompts("agreement_nounpp", 6, out=path)
    assert [p.clean for p in circuits.read_prompts(path)] == [p.clean for p in made]
    return path


@pytest.fixture(scope="module")
def circuit(prompts):
    analysis = circuits.open("bundled", "bundled", prompts, **FEW)
    found = circuits.discover(analysis)
    circuits.verify(found, level="quick")
    return found


def one(text):
    return circuits.Prompt(clean=text, patch=None, answer=(), wrong=())


def test_importing_it_loads_no_model_library():
    code = "import circuits, sys; print('torch' in sys.modules, 'open' in dir(circuits))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_every_public_name_is_there_and_says_what_it_is():
    for name in circuits.__all__:
        assert getattr(circuits, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'steer'"):
        circuits.steer  # noqa: B018


def test_names_of_modules_do_not_hide_functions():
    import circuits.comparison
    import circuits.render.figure

    assert callable(circuits.render)
    assert callable(circuits.compare)


def test_it_finds_what_the_command_finds(prompts, circuit, tmp_path):
    inputs = Inputs.resolved("bundled", "bundled", prompts)
    run = tmp_path / "run"
    found = discover_run(inputs, run, config=DiscoverConfig(**FEW))
    verify_run(run, config=VerifyConfig(level="quick"))
    assert nx.utils.edges_equal(circuit.graph.edges(data=True), found.graph.edges(data=True))
    effects = dict(found.graph.nodes(data="effect"))
    assert dict(circuit.graph.nodes(data="effect")) == effects
    opened = circuits.open_run(run)
    assert dict(opened.graph.nodes(data="effect")).keys() == effects.keys()
    assert opened.verification is not None
    assert opened.verification.record["curves"] == circuit.verification.record["curves"]


def test_tables_hold_what_the_graph_holds(circuit):
    graph = circuit.graph
    assert next(iter(circuit.nodes.index)) in {str(node) for node in graph}
    assert circuit.nodes["exact"].notna().all(), "verified"
    assert len(circuit.edges) == graph.number_of_edges()
    assert circuit.edges["weight"].abs().is_monotonic_decreasing
    checked = circuit.verification
    assert checked.faithfulness.loc["circuit"].iloc[-1] == pytest.approx(1.0)
    assert checked.agreement.loc["nodes", "n"] == sum(n.kind in ("feature", "error") for n in graph)


def test_everything_shows_itself_in_a_notebook(circuit):
    left = circuits.ablate(circuit, top=2, to="mean", name="two")
    assert circuit.ablations["two"] is left
    for shown in (circuit, circuit.verification, left):
        assert "<table" in shown._repr_html_()
        assert repr(shown) in shown._repr_html_()
    before, after = left.prompts[["before", "after"]].mean()
    assert before == pytest.approx(left.record["before"], abs=1e-5)
    assert after == pytest.approx(left.record["after"], abs=1e-5)
    rows = circuits.compare(circuit, left)
    assert (rows["status"] == "ablated").sum() == 2
    assert rows["change"].abs().is_monotonic_decreasing


def test_nodes_are_named_or_counted(circuit):
    strongest = next(n for n, _ in circuit.ranking if n.kind == "feature")
    by_name = circuits.ablate(circuit, str(strongest), to="zero")
    by_node = circuits.ablate(circuit, [strongest], to="zero")
    assert by_name.record["after"] == by_node.record["after"]
    with pytest.raises(ValueError, match="expected --top 1 to"):
        circuits.ablate(circuit, top=10_000)
    with pytest.raises(ValueError, match="there is no dictionary for"):
        circuits.ablate(circuit, "mlp_out.99/1")


def test_an_edit_holds_while_text_is_generated(circuit):
    model = circuit.analysis.model
    options = {"max_new_tokens": 1, "verbose": False, "do_sample": False}
    text = circuit.analysis.prompts.prompts[0].clean
    plain = model.generate(text, **options)
    everywhere = [n._replace(position=None) for n, _ in circuit.ranking if n.kind == "error"]
    with circuits.ablated(circuit, dict.fromkeys(everywhere), to="zero"):
        assert model.generate(text, **options) != plain, "without any error it is another model"
    assert model.generate(text, **options) == plain


def test_pictures_are_written_by_the_names_they_get(circuit, tmp_path):
    names = ("a/graph.html", "circuit.svg", "circuit.gexf")
    assert circuits.render(circuit, *(tmp_path / name for name in names), nodes=5)
    assert str(max(circuit.graph.nodes, key=str).site) in (tmp_path / names[0]).read_text("utf-8")
    assert nx.read_gexf(tmp_path / "circuit.gexf").number_of_nodes() == len(circuit.graph)
    with pytest.raises(ValueError, match="cannot render to docx: expected some of html, svg"):
        circuits.render(circuit, tmp_path / "circuit.docx")


def test_prompts_are_given_as_they_stand(prompts):
    lines = [json.loads(line) for line in prompts.read_text("utf-8").splitlines()]
    analysis = circuits.open(prompts=lines, **FEW)
    assert len(analysis.prompts) == len(lines)
    assert analysis.config.reference == "patch"
    assert circuits.open(prompts=[one(lines[0]["clean"])]).config.reference == "zero"
    with pytest.raises(ValueError, match="there are no prompts"):
        circuits.open()
    with pytest.raises(ValueError, match="no field 'clean'"):
        circuits.open(prompts=[{"answer": " are"}])


def test_training_tells_how_good_each_dictionary_is(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The keys near the cabinet are here. " * 2000, encoding="utf-8")
    quality = circuits.train(
        [str(text)], tmp_path / "out", layers="1", k=4, width=32, tokens=600, sites=["mlp_out"]
    )
    assert list(quality.index) == ["mlp_out.1"]
    assert quality["l0"].iloc[0] == pytest.approx(4, abs=0.5)
    assert len(circuits.open(dictionaries=tmp_path / "out", prompts=[one("The keys")]).suite) == 1
