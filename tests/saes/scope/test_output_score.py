"""The output score of a feature and its input score, against raising it by hand."""

import pytest
import torch

from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.tokens import encode_prompt
from saes.scope.output_score import input_score, output_score, output_scores
from saes.scope.usage import Peak
from tests.toys import speaking_toy, toy_hf, toy_suite


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


def test_the_output_score_is_that_of_the_likeliest_promoted_token():
    p = torch.tensor([[0.5, 0.2, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    promoted = torch.tensor([[2, 1], [3, 0]])
    assert output_score(p.log(), promoted).tolist() == pytest.approx([0.75 * 0.2, 0.4])


def test_output_scores_raise_a_feature_at_the_last_token(model):
    """As a hook on the layer does, by ten times the largest activation there."""
    name, layer = "resid_post.1", 1
    suite = toy_suite(name, dtype=torch.float32)
    nodes = [Node(name, i) for i in (3, 8, 11)]
    promoted = torch.tensor([[1, 2], [30, 31], [9, 4]])
    found = output_scores(model, suite, nodes, promoted, prompt="abc de")
    plain, d = hook(toy_hf(dtype=torch.float32), name="toy").original_model, suite[name]
    ids = torch.tensor([encode_prompt(model.tokenizer, "abc de")])
    for node, tokens, expected in zip(nodes, promoted, found, strict=True):

        def raised(module, args, h, node=node):
            most = d.encode(h[:, -1:]).value.max()
            h = h.clone()
            h[:, -1] += 10 * most * d.W_dec[node.feature]
            return h

        handle = plain.model.layers[layer].register_forward_hook(raised)
        with torch.no_grad():
            p = plain(ids).logits[0, -1].softmax(-1)
        handle.remove()
        best = float(p[tokens].max())
        rank = int((p > best).sum())
        assert expected == pytest.approx((1 - rank / len(p)) * best, rel=1e-3, abs=1e-7)
    with pytest.raises(ValueError, match="the neutral prompt has no tokens"):
        output_scores(model, suite, nodes, promoted, prompt="")


def test_the_input_score_is_the_share_of_texts_with_a_promoted_token():
    peaks = [Peak(token=t, activation=1.0) for t in (1, 2, 7, 1)]
    assert input_score(peaks, torch.tensor([1, 9])) == 0.5
    assert input_score([], torch.tensor([1])) is None
