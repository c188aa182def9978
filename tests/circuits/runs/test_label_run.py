"""Labels of people and models, put where pages and figures find them."""

import json
import re
from pathlib import Path

import pytest

from circuits.runs.label_run import add_labels
from circuits.runs.pages import labels_of, named_graph, names_of_features
from tests.circuits.conftest import call
from tests.circuits.runs.made_up_run import feature_of, made_up_run


@pytest.fixture
def run(tmp_path):
    return made_up_run(tmp_path)


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


def test_labels_of_the_bundled_dictionaries_are_not_written_to_a_folder_of_that_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="kept in a folder of yours, and bundled is none"):
        add_labels(Path("bundled"), said=["resid_post.3/86=dreams"])
    assert not list(tmp_path.iterdir())
