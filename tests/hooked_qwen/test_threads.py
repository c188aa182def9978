"""Threads by the size of the work, and as the user says."""

import os

import pytest
import torch

from hooked_qwen import threads
from hooked_qwen.threads import SHARED_FROM, fit_threads, set_threads
from tests.conftest import SIZES, toy


@pytest.fixture
def four(monkeypatch):
    """Torch with four threads of its own choice, nothing asked for."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_chosen", {})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_small_matrices_are_not_shared_and_large_ones_are(four):
    model = toy()
    assert fit_threads(model) == torch.get_num_threads() == 1
    assert fit_threads(model, width=SHARED_FROM // SIZES["hidden_size"] + 1) == 4
    assert fit_threads(model, width=64) == 1


def test_what_the_user_says_holds_for_every_model(four):
    set_threads(3)
    assert fit_threads(toy()) == 3
    assert fit_threads(toy(), width=SHARED_FROM) == 3
    with pytest.raises(ValueError, match="0 threads were asked for: expected 1 or more"):
        set_threads(0)


def test_the_environment_holds_too(four, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "4")
    assert fit_threads(toy()) == 4
