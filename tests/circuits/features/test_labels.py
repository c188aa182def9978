"""What people and models call features: the file, whose word counts, exports of others."""

import pytest

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
