"""`circuits estimate`: what a discovery takes, held against discoveries."""

import json

import torch
from transformers import AutoModelForCausalLM

from benchmarks import gpu_needs
from circuits.discovery.config import DiscoverConfig
from circuits.prompts import Prompt
from circuits.runs.estimate import estimate_discovery
from circuits.runs.needs import memory_of
from hooked_qwen.cost import ModelCost
from hooked_qwen.placement import Placement
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from tests.circuits.conftest import call
from tests.toys import (
    random_dictionary,
)

SPEC = DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=5)
PAIR = {"clean": "The judges by the bucket", "patch": "The judge by the bucket"}


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


def test_of_a_replacement_graph_the_transcoders_are_counted(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(PAIR | {"answer": " are", "wrong": " is"}))
    done = call("estimate", prompts, "--method", "replacement")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "75 features traced" in said  # five tokens, five layers, three each
    assert "a sweep: gradients, edges and their sizes" in said
