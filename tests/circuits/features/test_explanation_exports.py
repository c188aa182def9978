"""Labels as delphi and Neuronpedia read them."""

import gzip
import json

import pytest

from circuits.features.explanation_exports import exported
from circuits.features.explanations import read_explanations
from circuits.features.labels import Label
from circuits.runs.label_run import export_labels

LABELS = {
    "resid_post.3/7": Label(text="plural “nouns” 复数", by="model qwen"),
    "mlp_out.2/812": Label(text="years", by="Ann"),
    "attn_out.1/0": Label(text="names", by="model"),
}


def test_delphi_reads_what_is_exported_and_it_is_read_again(tmp_path):
    assert export_labels(LABELS, "delphi", tmp_path / "out") == 3
    names = sorted(p.name for p in (tmp_path / "out" / "explanations").iterdir())
    assert names == [
        "layers.1.self_attn_latent0.txt",
        "layers.2.mlp_latent812.txt",
        "layers.3_latent7.txt",
    ]
    # delphi reads a file with json.loads, and finds its latent by what stands behind "latent".
    text = (tmp_path / "out" / "explanations" / names[2]).read_text(encoding="utf-8")
    assert json.loads(text) == LABELS["resid_post.3/7"].text
    (tmp_path / "out" / "notes.json").write_text('{"by": "hand"}')
    again = read_explanations(tmp_path / "out")
    assert again == read_explanations(tmp_path / "out" / "explanations")
    assert {k: v.text for k, v in again.items()} == {k: v.text for k, v in LABELS.items()}
    assert {v.by for v in again.values()} == {"model of delphi"}


def test_neuronpedia_reads_what_is_exported_and_it_is_read_again(tmp_path):
    export_labels(LABELS, "neuronpedia", tmp_path / "out", model_id="qwen")
    paths = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*.gz"))
    sources = ("1-att", "2-mlp", "3-res")
    assert paths == [f"qwen/{source}/explanations/batch-0.jsonl.gz" for source in sources]
    (row,) = map(
        json.loads, gzip.decompress((tmp_path / "out" / paths[2]).read_bytes()).splitlines()
    )
    # Columns of its table Explanation that have no default.
    assert {"id", "modelId", "layer", "index", "description", "authorId"} <= row.keys()
    # The table ExplanationModelType has to know each model that explains, by these four.
    about = (tmp_path / "out/config/explanation_model_type.jsonl").read_text(encoding="utf-8")
    models = list(map(json.loads, about.splitlines()))
    assert all({"displayName", "description", "creatorName"} < model.keys() for model in models)
    assert [model["name"] for model in models] == ["qwen", "model"]
    assert (row["modelId"], row["layer"], row["index"]) == ("qwen", "3-res", "7")
    again = {}
    for path in paths:
        again |= read_explanations(tmp_path / "out" / path)
    # The export, one of its models, one of this model's sources.
    for folder in ("", "qwen"):
        assert read_explanations(tmp_path / "out" / folder) == again
    assert read_explanations(tmp_path / "out/qwen/3-res").keys() == {"resid_post.3/7"}
    assert {k: v.text for k, v in again.items()} == {k: v.text for k, v in LABELS.items()}
    assert again["resid_post.3/7"].by == "model qwen"
    assert again["mlp_out.2/812"].by == "a person"
    assert again["attn_out.1/0"].by == "model model"


def test_sites_may_be_called_otherwise_and_unknown_ones_are_refused(tmp_path):
    sites = ["3-x-res-4k=resid_post.3"]
    labels = {"resid_post.3/7": LABELS["resid_post.3/7"]}
    export_labels(labels, "neuronpedia", tmp_path / "out", model_id="m", sites=sites)
    assert (tmp_path / "out" / "m" / "3-x-res-4k").is_dir()
    with pytest.raises(ValueError, match=r"clt.3 has no name there: give --site 'NAME=clt.3'"):
        exported({"clt.3/1": Label(text="x")}, "delphi")
    with pytest.raises(ValueError, match="keeps explanations by model"):
        exported(labels, "neuronpedia")
    with pytest.raises(ValueError, match="the model is 'a/b': Neuronpedia has names such as"):
        exported(labels, "neuronpedia", model_id="a/b")
    with pytest.raises(ValueError, match="there are no labels to export"):
        exported({}, "delphi")


def test_an_export_replaces_only_itself(tmp_path):
    export_labels(LABELS, "delphi", tmp_path / "out")
    export_labels(LABELS, "delphi", tmp_path / "out")
    other = {"resid_post.3/7": Label(text="x")}
    with pytest.raises(ValueError, match="is there already and holds something else"):
        export_labels(other, "delphi", tmp_path / "out")
    export_labels(other, "delphi", tmp_path / "out", force=True)
    assert len(list((tmp_path / "out" / "explanations").iterdir())) == 1
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file: give a folder"):
        export_labels(other, "delphi", tmp_path / "file")


def test_more_rows_than_a_batch_holds_are_several_files(small_chunks):
    small_chunks("circuits.features.explanation_exports.BATCH", 2)
    labels = {f"mlp_out.2/{i}": Label(text=f"word {i}", by="Ann") for i in range(5)}
    files = exported(labels, "neuronpedia", model_id="qwen")
    assert [path.rpartition("/")[2] for path in files] == [
        f"batch-{n}.jsonl.gz" for n in range(3)
    ], "no model has explained anything"
    rows = [gzip.decompress(content).splitlines() for content in files.values()]
    assert [len(batch) for batch in rows] == [2, 2, 1]
    assert files == exported(labels, "neuronpedia", model_id="qwen"), "the same bytes each time"
