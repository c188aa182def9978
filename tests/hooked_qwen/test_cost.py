"""What a model takes, from its configuration: what the model itself takes once it is there."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3_5TextConfig, Qwen3Config, Qwen3MoeConfig, Qwen3MoeForCausalLM

from hooked_qwen.cost import ModelCost, as_dense, held_bytes, measured_rate
from hooked_qwen.forward import block_arguments, resume, run_recording
from hooked_qwen.load import hook, load, load_config
from hooked_qwen.placement import Placement
from hooked_qwen.tokens import Batch
from tests.toys import FAMILIES, SIZES, shared_toy

ROWS, POSITIONS = 3, 5


def toy_cost(family):
    config_class, _, extra = FAMILIES[family]
    return ModelCost(config_class(**SIZES, **extra), Placement(), name=family)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bundled_models_weights_to_the_byte(dtype):
    cost = ModelCost(load_config("bundled"), Placement(dtype=dtype), name="bundled")
    assert cost.weights == held_bytes(load("bundled", dtype=dtype, device="cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_weights_to_the_byte(family):
    assert toy_cost(family).weights == held_bytes(shared_toy(family, torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layers_operations_and_what_it_keeps_are_those_of_a_real_pass(family):
    model = shared_toy(family, torch.float32)
    tokens = torch.ones(ROWS, POSITIONS, dtype=torch.long)
    _, arguments = run_recording(model, Batch(tokens=tokens, mask=tokens.bool()))
    x = torch.randn(ROWS, POSITIONS, SIZES["hidden_size"]).requires_grad_()
    kept, weights = {}, {p.data_ptr() for p in model.parameters()}

    def keep(tensor):
        at = tensor.untyped_storage()
        if at.data_ptr() not in weights:
            kept[at.data_ptr()] = at
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as forward, hooks:
        out = resume(model, x, 1, arguments, stop=2)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(out.sum(), x)
    counted = toy_cost(family).layers(ROWS, POSITIONS)[1]
    assert counted.forward == forward.get_total_flops()
    assert counted.backward == backward.get_total_flops()
    assert counted.saved == sum(at.nbytes() for at in kept.values())


def test_blocks_are_called_as_for_prompts_without_padding():
    model = shared_toy()
    x = torch.randn(ROWS, POSITIONS, SIZES["hidden_size"], dtype=torch.float64)
    tokens = torch.ones(ROWS, POSITIONS, dtype=torch.long)
    _, recorded = run_recording(model, Batch(tokens=tokens, mask=tokens.bool()))
    made = block_arguments(model, ROWS, POSITIONS)
    assert torch.equal(resume(model, x, 0, made), resume(model, x, 0, recorded))


def test_a_mixture_counts_all_experts_in_memory_and_those_used_in_time():
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = Qwen3MoeConfig(**SIZES, head_dim=8, **experts)
    model = hook(Qwen3MoeForCausalLM(config), name="toy-moe")
    cost = ModelCost(config, Placement(), name="toy-moe")
    assert cost.weights == held_bytes(model)
    dense = Qwen3Config(**SIZES | {"intermediate_size": 32}, head_dim=8)
    of_dense = ModelCost(dense, Placement(), name="dense").layers(ROWS, POSITIONS)
    assert cost.layers(ROWS, POSITIONS) == of_dense
    assert as_dense(dense) is dense


def test_layers_of_two_kinds_are_counted_each_as_it_is():
    sizes = SIZES | {"num_hidden_layers": 4}
    cost = ModelCost(Qwen3_5TextConfig(**sizes, head_dim=8), Placement(), name="hybrid")
    linear, *_, attention = cost.layers(ROWS, POSITIONS)
    assert linear.forward > 0
    assert linear != attention


def test_a_rate_is_measured_on_the_device_that_is_asked_for(pretend):
    before = pretend.launches()
    rate = measured_rate(toy_cost("qwen3"), "pretend", ROWS, POSITIONS)
    assert pretend.launches() > before
    assert min(rate.forward, rate.both, rate.backward, rate.hashed) > 0
