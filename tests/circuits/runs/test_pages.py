"""The pages of a run folder: what they call features, and how they lead to each other."""

import json
import re

import pytest

from circuits.graph import load, ordered, save
from circuits.runs.folder import write_pages
from circuits.runs.pages import named_graph, names_of_features, run_links, run_of
from hooked_qwen.files import content_hash
from tests.circuits.conftest import call
from tests.circuits.runs.made_up_run import feature_of, made_up_run


@pytest.fixture
def run(tmp_path):
    return made_up_run(tmp_path)


def payload(page):
    html = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data-payload">(.*?)</script>', html)[1])


def hrefs(page):
    return re.findall(r'<a href="([^"]*)"', page.read_text(encoding="utf-8"))


def test_every_link_of_a_run_leads_to_a_page_that_is_there(run):
    pages = run / "features"
    pages.mkdir()
    key = feature_of(run)
    (pages / f"{key.replace('/', '-')}.html").touch()
    (pages / "suite.html").touch()
    write_pages(run)
    left = run / "ablations" / "top 5" / "graph.html"
    for page in (run / "graph.html", left):
        links = payload(page)["links"]
        found = [links["suite"], links["before"], *links["left"].values()]
        found = [*found, *links["features"].values(), *hrefs(page)]
        assert list(links["features"]) == [key]
        for place in filter(None, found):
            assert (page.parent / place.replace("%20", " ")).is_file(), place
    assert payload(run / "graph.html")["links"]["left"] == {"top 5": "ablations/top%205/graph.html"}
    back = run_links(run, pages)
    assert (pages / back.graph).resolve() == (run / "graph.html").resolve()
    assert all(node.split("@")[0] == key for node in back.nodes[key])


def test_a_folder_inside_a_run_is_of_that_run(run):
    for folder in (run, run / "features", run / "ablations" / "top 5"):
        assert run_of(folder) == run.resolve()
    assert run_of(run.parent) is None


def test_labels_of_a_saved_page_become_those_of_the_run_in_one_step(run, tmp_path):
    """The graph's page, that of the feature, the figure: all say what was typed on the page."""
    node = next(n for n in ordered(load(run / "graph.json")) if n.kind == "feature")
    key, state = f"{node.site}/{node.feature}", tmp_path / "state.json"
    saved = {"schema": "circuits-state/1", "pinned": [str(node)], "labels": {str(node): "nouns"}}
    state.write_text(json.dumps(saved))
    done = call("labels", run, state, "--by", "Ann")
    assert done.exit_code == 0, done.output
    assert json.loads((run / "labels.json").read_text()) == {key: {"text": "nouns", "by": "Ann"}}
    assert names_of_features(run)[key] == "nouns"
    assert '"nouns"' in (run / "graph.html").read_text()
    assert call("render", run, "--to", "svg").exit_code == 0
    assert ">nouns<" in (run / "graph.svg").read_text()


PROMPTS = [
    {"clean": "The keys near it", "patch": "The key near it", "answer": " are", "wrong": " is"},
    {"clean": "The key near it", "patch": "The keys near it", "answer": " is", "wrong": " are"},
]


def test_a_run_of_an_earlier_version_says_its_prompt_where_the_file_is_the_same(run, tmp_path):
    file = tmp_path / "agreement.jsonl"
    file.write_text("\n".join(map(json.dumps, PROMPTS)))
    graph = load(run / "graph.json")
    output = next(n for n in graph if n.kind == "logit")
    graph.nodes[output]["label"] = "“ are” 50%, “ is” 50% − wrong"
    tokens = {"tokens": [[" are", 0.5], [" is", 0.5]], "others": 0}
    graph.graph |= {"answers": {"of": "prompts", "of_several_tokens": 0, **tokens}}
    save(graph, run / "graph.json")
    manifest = {"prompts_path": str(file), "prompts_hash": content_hash(file)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = named_graph(run)
    assert found.graph["task"] == "agreement"
    assert "".join(found.graph["example"]["clean"]) == "The keys near it"
    assert found.nodes[output]["label"] == "are − is, is − are"
    file.write_text(json.dumps(PROMPTS[0]))
    assert "example" not in named_graph(run).graph
