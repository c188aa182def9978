"""`circuits estimate`: what a discovery takes, held against discoveries."""

import json
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import AutoModelForCausalLM

from benchmarks import gpu_needs
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replaced_prompts import Budget
from circuits.discovery.sparse_feature import discover
from circuits.prompts import Prompt
from circuits.runs.estimate import estimate_discovery, task_of
from circuits.runs.needs import DiscoverySize, memory_of, operations_of, state_bytes
from circuits.runs.needs_replacement import budget_of, prompt_bytes, sweep_operations
from hooked_qwen.cost import ModelCost
from hooked_qwen.placement import Placement
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from saes.formats.shapes import DictionaryShape
from tests.circuits.conftest import call
from tests.toys import (
    FAMILIES,
    SIZES,
    full_suite,
    random_dictionary,
    shared_toy,
    toy_prompts,
    toy_suite,
)
from transcoders.replacement import replace_mlps
from transcoders.sources import FEATURE

SPEC = DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=5)
PAIR = {"clean": "The judges by the bucket", "patch": "The judge by the bucket"}


@pytest.fixture(scope="module")
def model():
    return shared_toy("qwen3", torch.float32)


@pytest.fixture(scope="module")
def suite():
    return full_suite(torch.float32)


@pytest.fixture(scope="module")
def cost():
    config_class, _, extra = FAMILIES["qwen3"]
    return ModelCost(config_class(**SIZES, **extra), Placement(), name="toy")


def shapes_of(suite):
    return [
        DictionaryShape(
            name=d.name,
            source=d.source,
            target=d.target,
            features=d.n_features,
            k=d.spec.k,
            bytes=sum(b.nbytes for b in d.buffers()),
            stored=0,
        )
        for d in suite.values()
    ]


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


def wide(features, n=28):
    """Dictionaries of the shape of Qwen-Scope's for Qwen3-1.7B."""
    return [
        DictionaryShape(
            name=f"resid_post.{layer}",
            source=Site("resid_post", layer),
            target=Site("resid_post", layer),
            features=features,
            k=50,
            bytes=4 * 2 * features * SIZES["hidden_size"],
            stored=4 * 2 * features * SIZES["hidden_size"],
        )
        for layer in range(n)
    ]


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


def run(tmp_path, *options):
    (tmp_path / "prompts.jsonl").write_text(json.dumps(PAIR | {"answer": " are", "wrong": " is"}))
    return call("estimate", tmp_path / "prompts.jsonl", *options)


def test_the_command_tells_memory_and_time_and_writes_nothing(tmp_path):
    done = run(tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert [p.name for p in tmp_path.iterdir()] == ["prompts.jsonl"]
    for word in (
        "model",
        "dictionaries",
        "states of the prompts",
        "at most on cpu",
        "node effects",
    ):
        assert word in done.output
    assert "1 prompt of 5 tokens:" in done.output
    # To the byte in tests of their own: 1.76 million weights, and dictionaries of 8 MB.
    assert "7 MB" in done.output
    assert "8 MB" in done.output


def test_a_discovery_tells_the_same_of_itself_with_dry_run(tmp_path):
    told = run(tmp_path, "--device", "cpu").output
    arguments = ("discover", tmp_path / "prompts.jsonl", "--out", tmp_path / "run", "--dry-run")
    done = call(*arguments, "--metric", "kl", "--positions", "sum", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert [p.name for p in tmp_path.iterdir()] == ["prompts.jsonl"]

    def rows(text):
        return [line.split()[0] for line in text.splitlines() if line.strip()]

    assert rows(done.output) == rows(told)


def test_a_device_that_is_not_here_and_dictionaries_of_another_model_are_one_line(tmp_path, fails):
    run(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    assert "no device 'cuda:7' here" in fails("estimate", prompts, "--device", "cuda:7")
    other = tmp_path / "other"
    ours.save([random_dictionary(SPEC, dtype=torch.float32)], other)
    said = fails("estimate", prompts, "--dictionaries", other)
    assert "but the model is 128 wide: it is another model's" in said


def test_on_another_device_the_host_holds_only_what_is_loaded(tmp_path, pretend):
    listed = [Prompt(**PAIR, answer=(" are",), wrong=(" is",))]
    options = {"model": "bundled", "dictionaries": "bundled", "config": DiscoverConfig()}
    found = estimate_discovery(listed, placement=Placement(device="pretend"), **options)
    assert found.device.type == "pretend"
    assert found.host_peak == found.process + found.loading
    assert found.seconds == sum(item.amount for item in found.times)


def test_the_table_of_cards_is_of_models_with_as_many_parameters_as_were_published():
    published = {"Qwen3-1.7B": 1_720_574_976, "Qwen3-8B": 8_190_735_360}
    published["Qwen3-30B-A3B"] = 30_532_122_624
    for case in gpu_needs.CASES:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(case.config)
        assert sum(p.numel() for p in model.parameters()) == published[case.model]
        assert len(gpu_needs.dictionaries(case)) == case.config.num_hidden_layers


def test_what_fits_on_a_card_is_said_as_it_can_be_had():
    config = gpu_needs.qwen3(6, 1024, 2048, 8, tied=True)
    cost = ModelCost(config, Placement(dtype="bfloat16"), name="small")
    shapes = gpu_needs.dictionaries(gpu_needs.Case("small", 65_536, 50, config))
    whole = memory_of(cost, shapes, gpu_needs.TASK, None).total
    assert gpu_needs.verdict(cost, shapes, whole) == "whole"
    room = memory_of(cost, shapes, gpu_needs.TASK, 1.0).total
    assert gpu_needs.verdict(cost, shapes, room) == "`--memory 1`"
    assert gpu_needs.verdict(cost, shapes, cost.weights) == "`--device cuda:0,cpu`"


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


def test_of_a_replacement_graph_the_transcoders_are_counted(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(PAIR | {"answer": " are", "wrong": " is"}))
    done = call("estimate", prompts, "--method", "replacement")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "75 features traced" in said  # five tokens, five layers, three each
    assert "a sweep: gradients, edges and their sizes" in said
