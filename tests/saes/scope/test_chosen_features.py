"""Features to keep down: where they are on, others like them, and what is refused."""

import pytest
import torch

from hooked_qwen.nodes import Node
from saes.scope.chosen_features import (
    chosen_features,
    firing,
    mean_pre_activations,
    random_like,
)
from tests.saes.scope.test_fine_tune import penalty_on
from tests.toys import VOCABULARY, full_suite, toy_hf

ROWS = [[(7 * i + 3 * j) % (VOCABULARY - 1) + 1 for j in range(5 + i % 3)] for i in range(8)]
NODES = (Node("mlp_out.2", 3), Node("resid_post.1", 4), Node("mlp_out.2", 0))


def test_firing_is_that_of_all_pre_activations():
    model, suite = toy_hf(), full_suite()
    found = firing(model, suite, ["resid_post.1"], ROWS)["resid_post.1"]
    dense, n = torch.zeros(3, 20, dtype=torch.float64), 0
    for row in ROWS:
        x = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[2][0, 1:]
        f = suite["resid_post.1"].encode(x.detach()).dense()
        dense[0] += (f != 0).sum(0)
        dense[1] += f.sum(0)
        dense[2] = torch.maximum(dense[2], f.amax(0))
        n += len(row) - 1
    expected = (dense[0] / n, dense[1] / n, dense[2])
    for ours, theirs in zip((found.density, found.mean, found.largest), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_random_features_are_others_that_are_on_as_often():
    found = firing(toy_hf(), full_suite(), ["mlp_out.2", "resid_post.1"], ROWS)
    drawn = [random_like(NODES, found, seed=seed, nearest=2) for seed in range(5)]
    assert len(set(drawn)) > 1
    for nodes in drawn:
        assert [node.site for node in nodes] == [node.site for node in NODES]
        assert not set(nodes) & set(NODES)
        assert len(set(nodes)) == len(nodes)
    first = found["mlp_out.2"].density.clamp_min(1e-9).log()
    near = (first - first[3]).abs()
    near[[0, 3]] = torch.inf
    nearest = set(near.argsort(stable=True)[:2].tolist())
    assert {nodes[0].feature for nodes in drawn} <= nearest
    every = [Node("mlp_out.2", i) for i in range(20)]
    with pytest.raises(ValueError, match="mlp_out.2 has 20 features, too few"):
        random_like(every, found)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "no feature is named"),
        ([Node("resid_post.1", 4)] * 2, "resid_post.1/4 is named twice"),
        ([Node("resid_post.9", 4)], "no dictionary is called resid_post.9"),
        ([Node("resid_post.1", 40)], "features 0 to 19, not 40"),
        ([Node("resid_post.1", "error")], "is no feature of a dictionary"),
        ([Node("resid_post.1", 4, 2)], "is no feature of a dictionary at every token"),
    ],
)
def test_features_that_are_not_there_are_refused(nodes, said):
    with pytest.raises(ValueError, match=said):
        chosen_features(full_suite(), nodes, toy_hf())


def test_another_device_gives_the_same(other):
    def on(device):
        model = toy_hf(dtype=torch.float32).to(device)
        chosen = penalty_on(model, 1.0).chosen
        fired = firing(model, full_suite(dtype=torch.float32), ["resid_post.1"], ROWS)
        return {
            "means": mean_pre_activations(model, chosen, ROWS).tolist(),
            "largest": fired["resid_post.1"].largest.tolist(),
        }

    with other.complaining():
        there = on(other.name)
    other.agrees(there, on("cpu"))
