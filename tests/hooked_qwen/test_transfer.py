"""Tensors of all types and shapes come to the host as they are, and at once."""

import pytest
import torch

from hooked_qwen.transfer import to_host

TENSORS = [
    torch.tensor(2.5, dtype=torch.float64),
    torch.tensor([[True, False, True]]),
    torch.arange(6, dtype=torch.int16).view(2, 3).T,
    torch.zeros(0, 4),
    torch.linspace(-1, 1, 7).to(torch.bfloat16),
    torch.tensor([5, -5], dtype=torch.int8),
    torch.arange(3),
]


def test_what_comes_over_is_what_was_there_and_the_host_waits_once(pretend):
    there = [tensor.to("pretend") for tensor in TENSORS]
    with pretend.watch() as seen:
        here = to_host(there)
    assert seen.of("sync").total() == 1
    for found, expected in zip(here, TENSORS, strict=True):
        assert found.is_cpu
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


@pytest.mark.parametrize("tensors", [[], TENSORS])
def test_what_is_on_the_host_stays_as_it_is(tensors):
    assert all(a is b for a, b in zip(to_host(tensors), tensors, strict=True))
