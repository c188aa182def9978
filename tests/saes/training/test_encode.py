"""The features that are chosen by a rough product and checked are those of the exact one."""

import pytest
import torch

from saes.training.encode import TopKSelection, screened_topk
from saes.training.step import DictionaryWeights, ScratchMemory


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["one length", "many lengths"])
@pytest.mark.parametrize("difference", [1.0, 1e-3], ids=["far apart", "nearly equal"])
def test_candidates_from_a_rough_product_hold_the_largest(spread, difference):
    """Where rows are nearly equal no candidate is certain, and tokens are encoded again."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    rows = draw(1, 64) + difference * draw(2000, 64)
    lengths = (spread * draw(2000, 1)).exp()
    weights = DictionaryWeights(
        W_enc=rows / rows.norm(dim=-1, keepdim=True) * lengths,
        b_enc=0.3 * draw(2000),
        W_dec=rows,
        b_dec=draw(64),
    )
    x, choice = 3 * draw(300, 64), TopKSelection(k=8, of_batch=False, prefixes=(2000,))
    found = screened_topk(weights, x, choice, ScratchMemory())
    expected = (x @ weights.W_enc.T + weights.b_enc).relu().topk(8).values
    values = found.values.view(300, 8).sort(descending=True).values
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    again = (weights.W_enc[found.features] * x.repeat_interleave(8, 0)).sum(-1)
    again = (again + weights.b_enc[found.features]).relu()
    torch.testing.assert_close(found.values, again, atol=1e-5, rtol=1e-5)


def test_tokens_with_fewer_positive_pre_activations_than_k_keep_those():
    """Some have none: the rough search then returns any negative ones."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(500, 32, generator=generator)
    x = torch.randn(200, 32, generator=generator)
    weights = DictionaryWeights(W_enc=rows, b_enc=torch.full((500,), -14.0), W_dec=rows, b_dec=x[0])
    found = screened_topk(
        weights, x, TopKSelection(k=8, of_batch=False, prefixes=(500,)), ScratchMemory()
    )
    expected = (x @ rows.T - 14).relu().topk(8).values
    on = (expected > 0).sum(1)
    assert on.min() == 0
    assert on.max() == 8
    values = found.values.view(200, 8).sort(descending=True).values
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
