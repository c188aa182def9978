"""What a replacement graph is counted to take, held against replacement models."""

from dataclasses import fields, is_dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replaced_prompts import Budget
from circuits.runs.needs import DiscoverySize
from circuits.runs.needs_replacement import budget_of, prompt_bytes, sweep_operations
from tests.circuits.runs.toy_shapes import shapes_of
from tests.toys import (
    toy_prompts,
    toy_suite,
)
from transcoders.replacement import replace_mlps
from transcoders.sources import FEATURE


@pytest.fixture(scope="module")
def transcoders():
    names = [f"mlp_in.{layer}-mlp_out.{layer}" for layer in range(3)]
    return toy_suite(*names, dtype=torch.float32)


def replacement_task(tokens, **config):
    asked = DiscoverConfig(method="replacement", reference="zero", **config)
    return DiscoverySize(prompts=1, tokens=tokens, patched=False, config=asked)


def test_what_is_kept_of_a_replaced_prompt_is_what_is_counted(model, transcoders, cost):
    tokens = toy_prompts(n=1, length=40).clean.tokens[0]
    found = replace_mlps(model, transcoders, tokens)
    held = {x.untyped_storage()._cdata: x.nbytes for x in tensors_in(found)}
    assert counted_bytes(transcoders, cost, 40) == pytest.approx(sum(held.values()), rel=0.15)


def test_memory_of_a_replaced_prompt_does_not_grow_with_tokens_squared(transcoders, cost):
    n, longer = (counted_bytes(transcoders, cost, tokens) for tokens in (40_000, 80_000))
    assert longer == pytest.approx(2 * n, rel=0.1)


def test_patterns_that_do_not_fit_are_not_held(model, transcoders, cost):
    tokens = toy_prompts(n=1, length=40).clean.tokens[0]
    found = replace_mlps(model, transcoders, tokens, patterns_kept=0)
    held = {x.untyped_storage()._cdata: x.nbytes for x in tensors_in(found)}
    none = Budget(rows=2**30, patterns=0, sweep=2**25)
    counted = prompt_bytes(cost, shapes_of(transcoders), replacement_task(40), none)
    assert counted == pytest.approx(sum(held.values()), rel=0.15)


def counted_bytes(transcoders, cost, tokens):
    task = replacement_task(tokens)
    return prompt_bytes(cost, shapes_of(transcoders), task, budget_of(cost, task, None))


def tensors_in(found):
    """Those that a record holds, dictionaries and the model's own weights aside."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, tuple):
        for one in found:
            yield from tensors_in(one)
    elif is_dataclass(found):
        for one in fields(found):
            if one.name != "dictionaries":
                yield from tensors_in(getattr(found, one.name))


def test_the_operations_of_sweeps_are_those_that_torch_counts(model, transcoders, cost):
    tokens = toy_prompts(n=1, length=24).clean.tokens[0]
    found = replace_mlps(model, transcoders, tokens)
    features = (found.sources.kind == FEATURE).nonzero().squeeze(-1)
    with FlopCounterMode(display=False) as counter:
        for group in found.grouped(features, 1):
            found.inputs(found.features(group))
    task = replacement_task(24)
    one = sweep_operations(cost, shapes_of(transcoders), task, budget_of(cost, task, None))
    assert one * len(features) == pytest.approx(counter.get_total_flops(), rel=0.15)
