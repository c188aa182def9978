"""Explanations of others are read; what is none is no label."""

import gzip
import json

import pytest

from circuits.features.explanations import read_explanations
from circuits.features.labels import Label


def neuronpedia(layer="6-gemmascope-res-16k", index="12", **more):
    return {"modelId": "m", "layer": layer, "index": index, "description": " nouns ", **more}


MODEL = {"explanationModelName": "gpt-4o-mini"}
STATE = {"schema": "circuits-state/1", "labels": {"mlp_out.6/12@3": "nouns", "token@1": "x"}}


@pytest.mark.parametrize(
    ("name", "content", "feature", "by"),
    [
        ("a.jsonl", json.dumps(neuronpedia(**MODEL)), "resid_post.6/12", "model gpt-4o-mini"),
        ("a.json", json.dumps([neuronpedia()]), "resid_post.6/12", "a person"),
        ("a.json", json.dumps(neuronpedia("6-mlp-x")), "mlp_out.6/12", "a person"),
        ("a.json", json.dumps(neuronpedia("6-transcoder-16k")), "mlp_out.6/12", "a person"),
        ("a.json", json.dumps(neuronpedia("6-att_16k")), "attn_out.6/12", "a person"),
        ("a.json", json.dumps(neuronpedia("resid_mid.6")), "resid_mid.6/12", "a person"),
        (
            "a.json",
            json.dumps({"layer": "6-mlp", "index": 12, "explanations": [neuronpedia(**MODEL)]}),
            "mlp_out.6/12",
            "model gpt-4o-mini",
        ),
        ("model.layers.6.mlp_latent12.txt", '"nouns"', "mlp_out.6/12", "model of delphi"),
        ("layers.6_latent12.txt", "nouns\n", "resid_post.6/12", "model of delphi"),
        (
            "language_model.layers.6.mlp_latent12.txt",
            '"nouns\\n\\nExample 2: [EXPLANATION]: verbs"',
            "mlp_out.6/12",
            "model of delphi",
        ),
        ("backbone.layers.6_latent12.txt", '"nouns"', "resid_post.6/12", "model of delphi"),
        ("blocks.6.hook_mlp_out_latent12.txt", '"nouns"', "mlp_out.6/12", "model of delphi"),
        ("a.json", json.dumps(neuronpedia("6-clt-hp")), "clt.6/12", "a person"),
        (
            "a.json",
            '{"layers.6.self_attn_latent12": "nouns"}',
            "attn_out.6/12",
            "model of delphi",
        ),
        ("a.json", '{"mlp_out.6/12": {"text": "nouns", "by": "Ann"}}', "mlp_out.6/12", "Ann"),
        ("state.json", json.dumps(STATE), "mlp_out.6/12", "a person"),
    ],
)
def test_exports_of_others_are_read(tmp_path, name, content, feature, by):
    (tmp_path / name).write_text(content)
    said = {feature: Label(text="nouns", by=by)}
    assert read_explanations(tmp_path / name) == said
    assert read_explanations(tmp_path) == said


def test_an_answer_that_delphi_could_not_read_is_no_label(tmp_path):
    for index, text in enumerate(["nouns", "Explanation could not be parsed."]):
        (tmp_path / f"layers.6.mlp_latent{index}.txt").write_text(json.dumps(text))
    assert set(read_explanations(tmp_path)) == {"mlp_out.6/0"}


def test_a_layers_number_alone_says_no_site(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([neuronpedia("6")]))
    with pytest.raises(ValueError, match="'6' does not say which site it is: give --site '6=SITE'"):
        read_explanations(tmp_path / "a.json")
    assert set(read_explanations(tmp_path / "a.json", {"6": "mlp_out.6"})) == {"mlp_out.6/12"}


def test_packed_exports_and_the_callers_word_for_a_site(tmp_path):
    lines = [neuronpedia("6-jb", str(i), description=f"n{i}") for i in range(3)]
    packed = gzip.compress("\n".join(map(json.dumps, [*lines, lines[0]])).encode())
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"'6-jb' does not say which site it is: give --site"):
        read_explanations(tmp_path)
    found = read_explanations(tmp_path, {"6-jb": "resid_post.5"})
    assert {key: label.text for key, label in found.items()} == {
        f"resid_post.5/{i}": f"n{i}" for i in range(3)
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no explanations: expected records with layer, index"),
        ('{"a"', "line 1 is no JSON"),
        ("[3]", "a record is int, expected an object"),
        ('{"x": "y"}', "'x' is no feature: write SITE/INDEX"),
        ('{"mlp_out.1/2": 3}', "expected the text of an explanation"),
    ],
)
def test_a_file_without_explanations_is_refused(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_explanations(tmp_path / "a.json")
    with pytest.raises(ValueError, match="there is no file or folder"):
        read_explanations(tmp_path / "b.json")
