"""The fast searches choose what the plain ones choose."""

import pytest
import torch

from saes.training.selection import Pairs, largest, largest_positive, select_batch_topk, select_topk


def pre_activations(tokens, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, features, generator=generator, dtype=torch.float64)


def dense(pairs, features):
    """The chosen features as a matrix."""
    f = torch.zeros(len(pairs.counts), features, dtype=pairs.values.dtype)
    f[pairs.tokens, pairs.features] = pairs.values
    return f


@pytest.mark.parametrize("features", [5, 64, 512, 1000, 4096])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_largest_are_those_of_topk(features, k):
    pre = pre_activations(9, features)
    values, index = largest(pre, k)
    expected = pre.topk(k)
    assert torch.equal(values.sort(descending=True).values, expected.values)
    assert torch.equal(index.sort().values, expected.indices.sort().values)


@pytest.mark.parametrize("shift", [0.0, -2.0], ids=["enough", "few"])
def test_positive_numbers_are_found_by_their_bits(shift):
    pre = (pre_activations(50, 512) + shift).bfloat16()
    values, index = largest_positive(pre, 20)
    assert torch.equal(pre.gather(1, index), values)
    assert all(len(set(row.tolist())) == 20 for row in index)
    expected = pre.topk(20).values.relu()
    assert (expected == 0).any() == (shift < 0)
    assert torch.equal(values.relu().sort(descending=True).values, expected)


def test_ties_are_chosen_once_each():
    values, index = largest(torch.ones(2, 4096), 7)
    assert torch.equal(values, torch.ones(2, 7))
    assert all(len(set(row.tolist())) == 7 for row in index)


def test_topk_cuts_what_is_negative():
    pre = torch.tensor([[3.0, -1.0, 2.0, -5.0], [-1.0, -2.0, -3.0, -4.0]])
    expected = torch.tensor([[3.0, 0, 2, 0], [0, 0, 0, 0]])
    assert torch.equal(dense(select_topk(pre, 3), 4), expected)


def plain_batch_topk(pre, k):
    """Every pre-activation of the batch in one list."""
    positive = pre.relu()
    smallest = positive.flatten().sort(descending=True).values[k * len(pre) - 1]
    return torch.where(positive >= smallest, positive, 0)


@pytest.mark.parametrize("guess", [None, 0.0, -1.0, 0.5, 1.2, 50.0, torch.inf])
@pytest.mark.parametrize("k", [1, 4])
def test_batch_topk_is_the_same_whatever_the_guess(k, guess):
    pre = pre_activations(30, 40)
    # Tokens differ in how many features they get.
    pre[:5] += 2
    pairs = select_batch_topk(pre, k, guess=None if guess is None else torch.tensor(guess))
    assert torch.equal(dense(pairs, 40), plain_batch_topk(pre, k))
    assert pairs.counts.sum() == k * 30
    assert len(set(pairs.counts.tolist())) > 1


def test_batch_topk_keeps_fewer_where_fewer_are_positive():
    pre = torch.tensor([[1.0, -1.0], [-1.0, -2.0], [2.0, -1.0]])
    pairs = select_batch_topk(pre, 1)
    assert torch.equal(dense(pairs, 2), pre.relu())
    assert pairs.counts.tolist() == [1, 0, 1]


@pytest.mark.parametrize("shift", [0.0, -2.5], ids=["enough", "few"])
def test_batch_topk_on_a_device_chooses_the_same_without_waiting(pretend, shift):
    pre = pre_activations(30, 40) + shift
    with pretend.watch(forbid=("sync",)):
        there = select_batch_topk(pre.to("pretend"), 4, guess=torch.tensor(1.0).to("pretend"))
    found = Pairs(there.features.cpu(), there.values.cpu(), there.counts.cpu())
    assert torch.equal(dense(found, 40), dense(select_batch_topk(pre, 4), 40))
