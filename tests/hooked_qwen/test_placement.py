"""A device and a precision by name: what is meant, and what is said where there is none."""

import pytest
import torch

from hooked_qwen.load import load
from hooked_qwen.placement import (
    Placement,
    device_of,
    dtype_called,
    find_device,
    is_here,
    placement_of,
)
from hooked_qwen.precision import model_precision
from tests.toys import shared_toy, toy


def test_auto_is_the_first_accelerator_else_the_cpu(pretend):
    assert find_device() == find_device("auto") == torch.device("cpu")
    with pretend.first_accelerator():
        assert find_device("auto") == torch.device("pretend")


@pytest.mark.parametrize("name", ["cuda:7", "meta", "fpga"])
def test_a_device_that_is_not_here_is_told_of_beside_those_that_are(name, pretend):
    with pytest.raises(ValueError, match=f"no device '{name}' here: expected one of cpu$"):
        find_device(name)
    assert not is_here(name)
    with pretend.first_accelerator(), pytest.raises(ValueError, match="one of cpu, pretend:0$"):
        find_device(name)


def test_a_name_that_torch_does_not_know():
    with pytest.raises(ValueError, match=r"no device called 'gpu': expected auto, cpu, cuda"):
        load("bundled", device="gpu")


def test_a_precision_that_models_do_not_run_in():
    with pytest.raises(ValueError, match=r"'int8': expected one of float32, bfloat16, float16"):
        dtype_called("int8")


@pytest.mark.parametrize("memory", [0.0, -1.5, float("nan")])
def test_a_memory_that_holds_nothing(memory):
    with pytest.raises(ValueError, match=r"memory is .* GB: expected more than 0"):
        Placement(memory=memory)


def test_a_model_is_loaded_where_and_as_it_was_asked_for(pretend):
    model = load("bundled", device="pretend", dtype="bfloat16")
    assert {p.device.type for p in model.parameters()} == {"pretend"}
    assert model_precision(model) == torch.bfloat16
    assert placement_of(model, 3.0) == Placement(device="pretend:0", dtype="bfloat16", memory=3.0)


def test_a_model_on_another_device_gives_the_cpus_logits(pretend):
    tokens = torch.tensor([[5, 3, 8, 1]])
    here, there = shared_toy(dtype=torch.float32), toy(dtype=torch.float32).to("pretend")
    assert device_of(there) == torch.device("pretend:0")
    assert torch.equal(here(tokens), there(tokens.to("pretend")).cpu())
