"""`circuits render` takes runs and ablations, widths, styles and saved states."""

import json
import re
from xml.etree import ElementTree

import pytest

from tests.circuits.conftest import call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "run"
    prompt = ("--clean", "The judges by the bucket", "--patch", "The judge by the bucket")
    done = call("discover", *prompt, "--estimator", "patching", "--nodes", 30, "--out", out)
    assert done.exit_code == 0, done.output
    done = call("ablate", out, "--top", 2, "--to", "zero", "--name", "off")
    assert done.exit_code == 0, done.output
    return out


def texts(path):
    return [e.text for e in ElementTree.parse(path).getroot().iter() if e.tag.endswith("}text")]


def width(path):
    return float(ElementTree.parse(path).getroot().get("width").removesuffix("pt")) / 72


def test_widths_and_styles_are_what_was_asked_for(run):
    for asked in ("3.3in", "6.75in"):
        done = call("render", run, "--to", "svg", "--width", asked, "--nodes", 12)
        assert done.exit_code == 0, done.output
        assert f"{width(run / 'graph.svg'):g}in" == asked
    done = call("render", run, "--to", "svg", "--style", "slides", "--nodes", 12)
    assert done.exit_code == 0, done.output
    assert width(run / "graph.svg") == pytest.approx(13.33, abs=0.01)


def test_a_picture_needs_no_ranking(run, tmp_path):
    """Runs of earlier versions, whose ranking is in another form, are drawn."""
    earlier = tmp_path / "earlier"
    for name in ("graph.json", "manifest.json", "cards.json"):
        earlier.mkdir(exist_ok=True)
        (earlier / name).write_bytes((run / name).read_bytes())
    assert call("render", earlier, "--to", "svg").exit_code == 0
    assert call("render", run, "--to", "svg").exit_code == 0
    assert (earlier / "graph.svg").read_bytes() == (run / "graph.svg").read_bytes()


def test_letters_can_be_outlines(run):
    done = call("render", run, "--to", "svg", "--letters", "outlines")
    assert done.exit_code == 0, done.output
    assert texts(run / "graph.svg") == []


def test_a_width_that_no_paper_has_is_one_line(run, fails):
    assert "3.3in or 6.75in" in fails("render", run, "--to", "svg", "--width", "4in")
    assert "'wide' is no width" in fails("render", run, "--to", "svg", "--width", "wide")


def test_an_ablation_is_drawn_with_what_was_done(run):
    folder = run / "ablations/off"
    record = json.loads((folder / "result.json").read_text())
    done = call("render", folder, "--to", "html,svg,png")
    assert done.exit_code == 0, done.output
    written = texts(folder / "graph.svg")
    ends = f"{record['before']:.2f} → {record['after']:.2f}".replace("-", "−")
    assert f"×0: {ends}" in written
    assert written.count("×0") == 2
    page = (folder / "graph.html").read_text()
    assert "Ablation: off" in page
    assert f"<dt>Intervention</dt><dd>×0: {ends}</dd>" in page
    assert (folder / "graph.png").read_bytes()[:4] == b"\x89PNG"


def test_what_an_edit_leaves_is_drawn_with_what_was_done(run, tmp_path, fails):
    """The same badges as an ablation's: at the nodes, at the output, at the head of both pages."""
    edit, out = tmp_path / "more.json", tmp_path / "more"
    more = ("--top", 2, "--do", "add", "--value", 0.5, "--positions", "all")
    assert call("edit", "make", run, *more, "--out", edit).exit_code == 0
    assert call("edit", "apply", edit, "--run", run, "--out", out).exit_code == 0
    prompts = json.loads((out / "result.json").read_text())["prompts"]
    ends = (f"{prompts[end]['value']:.2f}".replace("-", "−") for end in ("before", "after"))
    said = "+0.5: " + " → ".join(ends)
    done = call("render", out, "--to", "svg,html", "--captions")
    assert done.exit_code == 0, done.output
    written = texts(out / "graph.svg")
    assert said in written
    assert "+0.5" in written
    for page in ("graph.html", "result.html"):
        assert f"<dt>Intervention</dt><dd>{said}</dd>" in (out / page).read_text(encoding="utf-8")
    assert "Edit: more" in (out / "graph.html").read_text(encoding="utf-8")
    assert "intervened on (+0.5)" in (out / "graph.caption.tex").read_text(encoding="utf-8")
    (out / "graph.json").unlink()
    assert "no graph that is left" in fails("render", out, "--to", "svg")


def test_a_saved_state_gives_groups_and_labels(run, tmp_path):
    nodes = json.loads((run / "graph.json").read_text())["nodes"]
    a, b, c, *_ = [n["id"] for n in nodes if n["kind"] == "feature"]
    state = {
        "schema": "circuits-state/1",
        "groups": {"two of them": [a, b]},
        "pinned": [c],
        "labels": {c: "named by hand"},
    }
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    done = call("render", run, "--to", "svg", "--groups", path, "--width", "6.75in")
    assert done.exit_code == 0, done.output
    written = texts(run / "graph.svg")
    assert "two of them" in written
    assert any(text.startswith("2 features, ") for text in written)
    assert "named by hand" in written


def test_a_file_that_is_no_state_is_one_line_and_draws_nothing(run, tmp_path, fails):
    path = tmp_path / "state.json"
    path.write_text("{}")
    (run / "graph.pdf").unlink(missing_ok=True)
    said = fails("render", run, "--to", "pdf", "--groups", path)
    assert "cannot read a saved state from" in said
    assert not (run / "graph.pdf").exists()


def test_tikz_and_a_caption_are_written_beside_the_figure(run):
    done = call("render", run, "--to", "tex,svg", "--captions")
    assert done.exit_code == 0, done.output
    assert done.output.count("graph.caption.tex") == 1
    assert r"\begin{tikzpicture}" in (run / "graph.tex").read_text()
    assert r"\caption{" in (run / "graph.caption.tex").read_text()


def test_two_circuits_are_one_figure_that_says_what_changed(run, fails):
    other = run / "ablations/off"
    done = call("render", run, "--to", "svg", "--against", other, "--nodes", 40)
    assert done.exit_code == 0, done.output
    written = texts(run / "comparison.svg")
    assert "ablated" in written
    assert any(re.fullmatch(r"[+−][\d.e+−]+ → [+−][\d.e+−]+", text) for text in written)
    assert any(text.startswith("A: run, B: off, on dark: support in A → in B") for text in written)
    said = fails("render", run, "--to", "html,svg", "--against", other)
    assert "their page is `circuits compare`" in said


def test_ablated_nodes_of_a_comparison_take_no_room_of_others(run):
    done = call("render", run, "--to", "svg", "--against", run / "ablations/off", "--nodes", 12)
    assert done.exit_code == 0, done.output
    assert any(", 12 of " in text for text in texts(run / "comparison.svg"))


@pytest.mark.parametrize(
    ("address", "to", "said"),
    [
        ("https://example.org/f", "svg", "for Neuronpedia alone: add neuronpedia to --to"),
        ("http://example.org/f", "neuronpedia", "expected an https address of a folder"),
        ("features", "neuronpedia", "expected an https address of a folder"),
    ],
)
def test_where_features_are_hosted_is_an_address(run, fails, address, to, said):
    assert said in fails("render", run, "--to", to, "--features-url", address)
    assert not (run / "neuronpedia").exists()
