"""TopK of fewer, of both signs, and at a threshold."""

from dataclasses import replace

import torch

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.nonlinearities import above_threshold, topk
from tests.saes.test_dictionary import inputs, spec, weights

HERE, THERE = Site("mlp_out", 1), Site("mlp_in", 1)
FEATURES, D_SOURCE, D_TARGET = 9, 4, 5


def test_topk_keeps_fewer_where_fewer_are_positive():
    pre = torch.tensor([[3.0, -1.0, 2.0, -5.0], [-1.0, -2.0, -3.0, -4.0], [1.0, 4.0, 2.0, 3.0]])
    expected = torch.tensor([[3.0, 0, 2, 0], [0, 0, 0, 0], [0.0, 4, 2, 3]])
    assert torch.equal(topk(pre, 3), expected)


def test_a_pre_activation_at_its_threshold_is_off():
    pre, threshold = torch.tensor([[1.0, 2.0, 3.0, -1.0]]), torch.tensor([2.0, 2.0, 2.0, -3.0])
    assert torch.equal(above_threshold(pre, threshold), torch.tensor([[0.0, 0.0, 3.0, 0.0]]))


def test_signed_topk_keeps_the_largest_as_they_are():
    pre = torch.tensor([[3.0, -1.0, -2.0, -5.0]])
    assert torch.equal(topk(pre, 2, signed=True), torch.tensor([[3.0, -1.0, 0, 0]]))
    w = weights(b_enc=torch.full((FEATURES,), -50.0, dtype=torch.float64))
    dictionary = SparseDictionary(replace(spec(), signed=True), w)
    f = dictionary.encode(inputs()).dense()
    assert ((f < 0).sum(-1) == 3).all()
