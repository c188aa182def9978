"""Threads by the size of the work, and as the user says."""

import os
import runpy

import pytest
import torch

from hooked_qwen import threads
from hooked_qwen.threads import SHARED_FROM
from tests.toys import SIZES, shared_toy


@pytest.fixture
def fresh(monkeypatch):
    """The module's functions as in a new process, where torch chose four threads."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    found = runpy.run_path(threads.__file__)
    yield found["set_threads"], found["fit_threads"]
    torch.set_num_threads(before)


def test_small_matrices_are_not_shared_and_large_ones_are(fresh):
    _, fit_threads = fresh
    model = shared_toy()
    assert fit_threads(model) == torch.get_num_threads() == 1
    assert fit_threads(model, width=SHARED_FROM // SIZES["hidden_size"] + 1) == 4
    assert fit_threads(model, width=64) == 1


def test_what_the_user_says_holds_for_every_model(fresh):
    set_threads, fit_threads = fresh
    set_threads(3)
    assert fit_threads(shared_toy()) == 3
    assert fit_threads(shared_toy(), width=SHARED_FROM) == 3
    with pytest.raises(ValueError, match="0 threads were asked for: expected 1 or more"):
        set_threads(0)


def test_the_environment_holds_too(fresh, monkeypatch):
    _, fit_threads = fresh
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "4")
    assert fit_threads(shared_toy()) == 4
