"""The pages of a run folder: what they call features, and how they lead to each other."""

import json
import re
from pathlib import Path

import pytest

from circuits.graph import load, ordered, save
from circuits.runs.folder import write_pages
from circuits.runs.label_run import add_labels
from circuits.runs.pages import labels_of, named_graph, names_of_features, run_links, run_of
from hooked_qwen.files import content_hash
from tests.circuits import synthetic
from tests.circuits.conftest import call


@pytest.fixture
def run(tmp_path):
    """A run's folder with an ablation, made up."""
    folder = tmp_path / "a run"
    into = folder / "ablations" / "top 5"
    into.mkdir(parents=True)
    graph = synthetic.circuit(30)
    save(graph, folder / "graph.json")
    save(synthetic.circuit(20), into / "graph.json")
    (folder / "cards.json").write_text(json.dumps(synthetic.cards(graph)))
    (folder / "manifest.json").write_text(json.dumps({"dictionaries_path": "absent"}))
    (into / "result.json").write_text(json.dumps(synthetic.ablations()["everything"]))
    return folder


def payload(page):
    html = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data-payload">(.*?)</script>', html)[1])


def hrefs(page):
    return re.findall(r'<a href="([^"]*)"', page.read_text(encoding="utf-8"))


def feature_of(run):
    node = next(n for n in ordered(load(run / "graph.json")) if n.kind == "feature")
    return f"{node.site}/{node.feature}"


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


def test_a_label_is_the_same_on_every_page_of_the_run(run):
    key = feature_of(run)
    before = (run / "graph.json").read_bytes()
    added = add_labels(run, said=[f"{key}=plural <b>subjects</b>"], by="Ann")
    assert (added.taken, added.outranked, added.of_other_sites) == (1, 0, {})
    assert names_of_features(run)[key] == "plural <b>subjects</b>"
    for graph in (named_graph(run), named_graph(run / "graph.json")):
        labels = {d["label"] for n, d in graph.nodes(data=True) if str(n).split("@")[0] == key}
        assert labels == {"plural <b>subjects</b>"}
    assert r"plural \u003cb\u003esubjects" in (run / "graph.html").read_text()
    assert (run / "graph.json").read_bytes() == before, "what people say is not part of a result"


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


def test_a_persons_label_stays_when_a_models_comes(run, tmp_path):
    key = feature_of(run)
    site, _, index = key.partition("/")
    add_labels(run, said=[f"{key}=mine"], by="Ann")
    export = tmp_path / "export.jsonl"
    rows = [
        {"layer": site, "index": i, "description": f"n{i}", "explanationModelName": "gpt"}
        for i in (index, "77")
    ]
    rows.append({"layer": "clt.9", "index": "1", "description": "elsewhere"})
    export.write_text("\n".join(map(json.dumps, rows)))
    done = call("labels", run, export)
    assert done.exit_code == 0, done.output
    assert "1 label of models left out" in done.output
    assert "1 label of clt.9 left out" in done.output
    found = {k: (x.text, x.by) for k, x in labels_of(run).items()}
    assert found == {key: ("mine", "Ann"), f"{site}/77": ("n77", "model gpt")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "clt.9/1=x"], "no label is of a dictionary of .*, all are of clt.9: expected"),
        (["--set", "nonsense"], "'nonsense' is not of the form SITE/INDEX=TEXT"),
        (["absent.json"], "there is no file or folder of explanations at absent.json"),
    ],
)
def test_labels_that_fit_nowhere_are_refused(run, fails, arguments, said):
    assert re.search(said, fails("labels", run, *arguments))
    assert not (run / "labels.json").exists()


def test_labels_beside_dictionaries_serve_every_run_of_them(run, tmp_path):
    key = feature_of(run)
    dictionaries = tmp_path / "dictionaries"
    dictionaries.mkdir()
    (run / "manifest.json").write_text(json.dumps({"dictionaries_path": str(dictionaries)}))
    (dictionaries / "labels.json").write_text(json.dumps({key: {"text": "theirs", "by": "Bo"}}))
    assert names_of_features(run)[key] == "theirs"
    add_labels(run, said=[f"{key}=ours"])
    assert names_of_features(run)[key] == "ours"


PROMPTS = [
    {"clean": "The keys near it", "patch": "The key near it", "answer": " are", "wrong": " is"},
    {"clean": "The key near it", "patch": "The keys near it", "answer": " is", "wrong": " are"},
]


def test_labels_of_the_bundled_dictionaries_are_not_written_to_a_folder_of_that_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="kept in a folder of yours, and bundled is none"):
        add_labels(Path("bundled"), said=["resid_post.3/86=dreams"])
    assert not list(tmp_path.iterdir())


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
