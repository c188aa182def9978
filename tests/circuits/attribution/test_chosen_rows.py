"""Rows of the features of a graph: those of the dictionary, in order, each once."""

import torch

from circuits.attribution.chosen_rows import ChosenRows, rows_of
from circuits.graph import Node
from tests.toys import toy_suite


def test_rows_are_the_dictionarys_whatever_the_order_they_were_asked_in():
    dictionary = toy_suite("mlp_in.1-mlp_out.1")["mlp_out.1"]
    rows = ChosenRows.of(dictionary, [7, 2, 7, 19, 0])
    assert rows.known.tolist() == [0, 2, 7, 19]
    asked = torch.tensor([[19, 2], [7, 0]])
    assert torch.equal(rows.known[rows.at(asked)], asked)
    assert torch.equal(rows.W_enc[rows.at(asked)], dictionary.W_enc[asked])
    assert torch.equal(rows.W_dec[rows.at(asked)], dictionary.W_dec[asked])


def test_features_of_a_graph_are_told_apart_from_its_other_nodes():
    suite = toy_suite("mlp_out.0", "resid_post.1", "resid_post.2")
    nodes = [
        Node("mlp_out.0", 3, 1),
        Node("mlp_out.0", 3, 2),
        Node("mlp_out.0", "error", 1),
        Node("resid_post.2", "error", 0),
        Node("resid_post.1", 4),
        Node("embed", "token", 0),
        Node("logit", " are"),
    ]
    rows = rows_of(suite, nodes)
    assert {name: one.known.tolist() for name, one in rows.items()} == {
        "mlp_out.0": [3],
        "resid_post.1": [4],
    }
    assert torch.equal(rows["resid_post.1"].W_dec[0], suite["resid_post.1"].W_dec[4])
    assert rows_of(suite, []) == {}
