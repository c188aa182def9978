"""What features are called: as people call them, else by what they promote."""

import torch

from circuits.features.card import promoted_labels
from circuits.features.named import Named, key_of
from hooked_qwen.nodes import Node
from tests.toys import speaking_toy, toy_suite


def test_a_feature_is_called_as_people_call_it_else_by_what_it_promotes():
    model, suite = speaking_toy(dtype=torch.float32), toy_suite("mlp_out.1", dtype=torch.float32)
    nodes = [Node("mlp_out.1", 3), Node("mlp_out.1", 4), Node("mlp_out.1", 3)]
    named = Named(model, suite, {"mlp_out.1/3": "years"})
    assert named.of(nodes) == {
        nodes[0]: "years",
        nodes[1]: promoted_labels(model, suite, nodes[1:2])[nodes[1]],
    }
    assert (named.given(nodes[0]), named.given(nodes[1])) == ("years", "")
    assert named.of([]) == {}


def test_a_key_is_of_the_feature_at_any_position():
    assert key_of(Node("mlp_out.1", 3, 7)) == key_of(Node("mlp_out.1", 3)) == "mlp_out.1/3"
