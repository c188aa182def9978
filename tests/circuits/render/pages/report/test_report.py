"""The report: one page that holds what was found, opens offline, and prints."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from circuits.graph import Node
from circuits.render.pages.report.report import Reported, report_page
from tests.circuits.attribution_graphs.sample import SAMPLE
from tests.circuits.conftest import call
from tests.circuits.synthetic import ablations, circuit, verification

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u202e {{ 7 * 7 }} 复"
RERUN = {
    "schema": "rerun/1",
    "edit": [f"5 features: set to 0 {HOSTILE}"],
    "prompts": {
        name: {"value": value, "interval": [value - 0.5, value + 0.5]}
        for name, value in (("before", 4.25), ("after", 2.75), ("change", -1.5))
    },
}


def whole(name="run", label="a label"):
    graph = circuit(60)
    graph.graph["notices"] = [f"told {label}"]
    for _, data in graph.nodes(data=True):
        data["label"] = label
    graph.add_node(Node("logit", label), kind="logit", token=None, activation=None, effect=None,
                   exact=None, label="")  # fmt: skip
    return Reported(
        name=name,
        graph=graph,
        prompts=[{"clean": f"The keys {label}", "patch": "The key", "answer": " are",
                  "wrong": " is"}],
        dictionaries=[{"name": "mlp_out.1", "source": "mlp_in.1", "l0": 32.0, "fvu": 0.25,
                       "dead": 0.125, "loss_recovered": 0.9,
                       "intervals": {"fvu": [0.2, 0.3]}}],
        verification=verification(graph),
        stability={"nodes": {n: {"value": 0.7, "interval": [0.6, 0.8]}
                             for n in ("jaccard", "between_draws")}},
        ablations=ablations(),
        edited={"mine": {"rows": {"nodes": {"faithfulness": 0.5, "interval": [0.4, 0.6]}}}},
        reruns={f"rerun {label}": RERUN},
        commands=[f"circuits discover {label}"],
        origin=[("seed", "0")],
    )  # fmt: skip


class Texts(HTMLParser):
    """What a reader sees of a page, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page():
    return report_page([whole("first run", HOSTILE), whole("second run")], title=HOSTILE)


def test_it_says_all_that_is_known_of_a_run(page):
    said = " ".join(" ".join(Texts(page).text).split())
    for part in (
        "Which features of Qwen3-0.6B-Base carry its logit difference",
        "61 nodes",
        "The keys",
        "0.25 (0.20 to 0.30)",
        "0.94 (0.91 to 0.96)",
        "faithfulness of 0.90 (0.86 to 0.95)",
        "random features",
        "held-out prompts",
        "with the circuit: 0.70 (0.60 to 0.80)",
        "2 nodes at zero",
        "−1.10",
        "98%",
        "0.50 (0.40 to 0.60)",
        "−1.50 (−2.00 to −1.00)",
        "circuits discover",
    ):
        assert part in said, part


def test_the_figures_are_vectors_inside_the_page(page):
    images = [attributes for tag, attributes in Texts(page).tags if tag == "img"]
    assert len(images) == 4
    for image in images:
        kind, _, content = image["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert b"<svg" in base64.b64decode(content)
        assert image["alt"]


def test_hostile_text_stays_text_and_nothing_runs(page):
    tags = Texts(page).tags
    assert not [tag for tag, _ in tags if tag == "script"]
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]
    said = "".join(Texts(page).text)
    assert "<script>alert(1)</script>" in said
    assert "{{ 7 * 7 }}" in said


def test_it_opens_offline_with_all_its_figures(page, visit):
    tab = visit(page)
    loaded = tab.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 50)")
    assert loaded == [True] * 4
    tab.locator("nav a").nth(1).click()
    assert tab.evaluate("location.hash") == "#run-2"
    assert tab.locator("#run-2").get_by_role("heading", name="second run").is_visible()


def test_it_prints_within_the_page(page, visit):
    tab = visit(page)
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 672, "height": 1000})  # A4 less its margins
    assert tab.evaluate("document.documentElement.scrollWidth") <= 672
    heights = tab.evaluate("[...document.images].map(i => i.getBoundingClientRect().height)")
    assert max(heights) <= 9 * 96
    assert tab.pdf(format="A4").count(b"/Type /Page\n") >= 4


def test_one_run_has_no_index_no_title_twice_and_leaves_out_what_is_missing():
    graph = circuit(20)
    said = report_page([Reported(name="bare", graph=graph)], title="bare")
    headings = re.findall(r"<(h[12])[^>]*>\s*(.*?)\s*</h", said)
    assert [name for name, _ in headings] == ["h1", "h2"]
    assert headings[0][1] == "bare"
    assert headings[1][1].startswith("Which features of")
    seen = " ".join(Texts(said).text)
    assert "<nav" not in said
    assert "Not verified" in seen
    for absent in ("Dictionaries", "Cut and run again", "Found again"):
        assert absent not in seen


def test_the_command_reports_runs_and_replaces_its_own_page_only(tmp_path, fails):
    for name in ("one", "two"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(SAMPLE), encoding="utf-8")
        assert call("import", path, "--out", tmp_path / name).exit_code == 0
    rerun = tmp_path / "rerun"
    rerun.mkdir()
    (rerun / "result.json").write_text(json.dumps(RERUN | {"made_from": {"run": "another"}}))
    out, runs = tmp_path / "report.html", [tmp_path / "one", tmp_path / "two"]
    done = call("report", *runs, "--out", out)
    assert done.exit_code == 0, done.output
    seen = " ".join(Texts(out.read_text(encoding="utf-8")).text)
    assert "imported from" in seen
    assert "Edits rerun" not in seen
    assert call("report", *runs, "--out", out).exit_code == 0
    assert "is there already" in fails("report", tmp_path / "one", "--out", out)
    assert call("report", tmp_path / "one", "--out", out, "--force").exit_code == 0
    assert "not a finished run" in fails("report", rerun, "--out", tmp_path / "no.html")
    assert "named twice" in fails("report", runs[0], runs[0], "--out", tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()
