"""What people and models call features: the file, whose word counts, exports of others."""

import gzip
import json

import pytest

from circuits.features.explanations import read_explanations
from circuits.features.labels import Label, labelled, merged, read_labels, write_labels
from tests.circuits import synthetic

ANN = Label(text="plural subjects", by="Ann")
GPT = Label(text="nouns", by="model gpt-4o-mini")


def test_labels_are_read_as_they_were_written(tmp_path):
    labels = {"mlp_out.3/812": ANN, "mlp_out.3/9": GPT, "clt.2/0": Label(text="复数\n<b>")}
    write_labels(labels, tmp_path / "labels.json")
    assert read_labels(tmp_path / "labels.json") == labels
    assert read_labels(tmp_path / "absent.json") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read labels from .*labels.json"),
        ("[]", "holds list, expected an object"),
        ('{"mlp_out.3": "x"}', "'mlp_out.3' is no feature: write SITE/INDEX"),
        ('{"mlp_out.3/1@5": "x"}', "'mlp_out.3/1@5' is no feature"),
        ('{"mlp_out.3/1": 7}', 'is 7, expected {"text"'),
        ('{"mlp_out.3/1": {"text": ["x"]}}', "expected"),
        ('{"mlp_out.3/1": {"text": " "}}', "a label is empty"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, said):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_labels(tmp_path / "labels.json")


def test_a_persons_word_counts_more_than_a_models_and_a_later_one_more_than_an_earlier():
    other = Label(text="other", by="Bo")
    assert merged([{"a.1/1": ANN}, {"a.1/1": GPT}]) == {"a.1/1": ANN}
    assert merged([{"a.1/1": GPT}, {"a.1/1": ANN}]) == {"a.1/1": ANN}
    assert merged([{"a.1/1": ANN}, {"a.1/1": other}, {"a.1/2": GPT}]) == {
        "a.1/1": other,
        "a.1/2": GPT,
    }


def test_every_node_of_a_feature_takes_its_label_and_no_other_node():
    graph = synthetic.circuit(60)
    node = next(n for n in graph if n.kind == "feature")
    graph.add_node(node._replace(position=99), **graph.nodes[node])
    named = labelled(graph, {f"{node.site}/{node.feature}": ANN})
    changed = {n for n in graph if named.nodes[n] != graph.nodes[n]}
    assert {n[:2] for n in changed} == {node[:2]}
    assert len(changed) == sum(n[:2] == node[:2] for n in graph) >= 2
    assert {named.nodes[n]["label"] for n in changed} == {"plural subjects"}


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
