"""What a discovery is counted to take, held against what discoveries take."""

from dataclasses import replace

import pytest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.runs.estimate import task_of
from circuits.runs.needs import DiscoverySize, memory_of, operations_of, state_bytes
from tests.circuits.runs.toy_shapes import shapes_of, wide
from tests.toys import (
    toy_prompts,
)


class Operations(TorchDispatchMode):
    """Counts floating-point operations as torch counts them."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def counted(operations):
    kinds = (operations.forward, operations.both, operations.edges, operations.encoded)
    return sum(item.amount for items in kinds for item in items if "examples" not in item.name)


@pytest.mark.parametrize("estimator", ["ig", "ig-inputs", "patching", "exact"])
@pytest.mark.parametrize("reference", ["patch", "zero"])
def test_the_operations_are_those_that_torch_counts(model, suite, cost, estimator, reference):
    if estimator == "ig-inputs" and reference == "zero":
        pytest.skip("it moves to a patch only")
    prompts = toy_prompts(6, length=10)
    config = DiscoverConfig(estimator=estimator, reference=reference, nodes=20, steps=4)
    with Operations() as real:
        discover(Analysis.of(model, suite, prompts, config))
    task = task_of(prompts, config, text=0)
    expected = counted(operations_of(cost, shapes_of(suite), task, None))
    # Edges are counted as if every node answered on every prompt, which the toy's do not.
    assert 1 / 1.3 < expected / real.total < 1.6


@pytest.mark.parametrize("n", [4, 32])
def test_the_size_of_a_state_is_that_of_the_state_that_is_made(model, suite, cost, n):
    prompts, config = toy_prompts(n, length=8), DiscoverConfig()
    (state,) = Analysis.of(model, suite, prompts, config).states
    expected = state_bytes(cost, shapes_of(suite), task_of(prompts, config, text=0))
    assert 1 / 1.3 < expected / state.size() < 1.3


def test_memory_holds_the_dictionaries_within_what_is_given_and_does_not_grow_with_prompts(cost):
    shapes, config = wide(2048, n=3), DiscoverConfig()
    one = shapes[0].bytes
    task = DiscoverySize(prompts=64, tokens=20, config=config)
    whole = memory_of(cost, shapes, task, None)
    assert whole.dictionaries == whole.every_dictionary == 3 * one
    assert memory_of(cost, shapes, task, 1.5 * one / 1e9).dictionaries == int(1.5 * one)
    assert memory_of(cost, shapes, task, 0.5 * one / 1e9).dictionaries == one
    # In half precision it is there twice while it is read, as its file has it and in float32.
    halves = [replace(shape, stored=one // 2) for shape in shapes]
    assert memory_of(cost, halves, task, 0.5 * one / 1e9).dictionaries == one + one // 2
    assert memory_of(cost, shapes, task, 4 * one / 1e9).dictionaries == 3 * one
    more = memory_of(cost, shapes, replace(task, prompts=6400), 1e-9)
    assert more.total == memory_of(cost, shapes, task, 1e-9).total


def test_more_prompts_than_are_kept_are_made_again(cost):
    shapes, config = wide(2048, n=3), DiscoverConfig()
    few, many = (DiscoverySize(prompts=n, tokens=20, config=config) for n in (32, 32_000))
    of_few, of_many = (operations_of(cost, shapes, task, None).forward[0] for task in (few, many))
    assert of_many.amount == 2 * 1000 * of_few.amount
