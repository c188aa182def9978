"""The whole job from Python: `import circuits`, and a call for each step."""

import ast
import html as escaped
import json
import re
import subprocess
import sys
import textwrap
from functools import partial
from types import SimpleNamespace

import networkx as nx
import pytest

import circuits
from circuits.discovery.config import DiscoverConfig
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.verify_run import verify_run
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


def example_of(name):
    """The code in the description of a public name: what stands indented in it, or under it."""
    _, _, text = getattr(circuits, name).__doc__.partition("\n")
    blocks = map(textwrap.dedent, text.split("\n\n"))
    codes = [block for block in blocks if "circuits." in block and is_code(block)]
    return "\n".join(codes)


def is_code(text):
    try:
        compile(text, "", "exec")
    except SyntaxError:
        return False
    return True


def test_importing_it_loads_no_model_library():
    code = "import circuits, sys; print('torch' in sys.modules, 'open' in dir(circuits))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_every_public_name_is_there_and_says_what_it_is():
    for name in circuits.__all__:
        assert getattr(circuits, name).__doc__, name
        assert example_of(name), f"{name} has no example"
    with pytest.raises(AttributeError, match="no attribute 'steer'"):
        circuits.steer  # noqa: B018


@pytest.mark.parametrize("name", [n for n in circuits.__all__ if n[0].isupper()])
def test_examples_of_classes_run(name, circuit, prompts, monkeypatch):
    """On few nodes; where an example compares two things, they are the same."""
    monkeypatch.chdir(prompts.parent)
    public = {known: getattr(circuits, known) for known in circuits.__all__}
    few = SimpleNamespace(**public | {"open": partial(circuits.open, **FEW)})
    names = {"circuits": few, "circuit": circuit, "analysis": circuit.analysis}
    if name == "Sufficiency":
        how = {"mlp": "transcoder", "positions": "sum", "reference": "zero"}
        names["of_transcoders"] = few.open(prompts=prompts, **how)
    example = example_of(name)
    exec(example, names)
    for line in ast.parse(example).body:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Compare):
            assert eval(ast.unparse(line), names), ast.unparse(line)


def test_names_of_modules_do_not_hide_functions():
    import circuits.comparison
    import circuits.render.figure.figure

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
    opened = circuits.open_run(run, device="cpu", memory=1.0)
    assert opened.analysis.suite.room_for_states(0.0) == 1e9 / 4
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


def cells(html):
    """The texts of a page's table cells."""
    return [escaped.unescape(c) for c in re.findall(r"<td>(.*?)</td>", html)]


def test_an_analysis_shows_what_it_is_of(circuit):
    told = cells(circuit.analysis._repr_html_())
    assert dict(zip(told[::2], told[1::2], strict=True)) == {
        "model": circuit.analysis.model.cfg.model_name,
        "dictionaries": circuit.analysis.suite.summary(),
        "prompts": "6 prompts, each with its patch",
        "metric": "logit-difference",
        "device": "cpu",
        "dtype": "float32",
    }
    alone = circuits.open(prompts=[one("The keys")], metric="log-probability")
    assert {"1 prompt", "log-probability"} <= set(cells(alone._repr_html_()))


def test_an_edit_shows_its_operations():
    nodes = [circuits.Node("mlp_out.3", n) for n in range(12)]
    when = circuits.Condition(node=circuits.Node("resid_post.2", 7), above=0.5)
    first = circuits.Operation(node=nodes[0], do="scale", value=2, positions="last", when=when)
    others = [circuits.Operation(node=node, do="zero") for node in nodes[1:]]
    edit = circuits.Edit(operations=(first, *others), suite="0", suite_name="<b>mine</b>")
    html = edit._repr_html_()
    where = "at the last token of the prompt and each generated one"
    told = ["mlp_out.3/0", "multiplied by 2", where, "resid_post.2/7 is above 0.5"]
    assert cells(html)[:8] == [*told, "mlp_out.3/1", "set to 0", "at every token", ""]
    assert "and 2 more operations" in html
    assert "&lt;b&gt;mine" in html
    assert "<b>" not in html


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
    with pytest.raises(ValueError, match="GB"):
        circuits.train([str(text)], tmp_path / "more", layers="1", tokens=600, memory=1e-6)
    assert not (tmp_path / "more").exists()
