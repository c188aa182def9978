"""A discovery that is cut off goes on, and ends as if it never was."""

import dataclasses
import json

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.resume import UNFINISHED, DiscoveryParts, close_parts, open_parts
from circuits.discovery.sparse_feature import discover
from circuits.graph import as_json
from circuits.prompts import write_prompts
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import make_prompts
from tests.toys import full_suite, shared_toy, toy_prompts

CONFIG = DiscoverConfig(estimator="ig", nodes=15, steps=2, batch_size=2)


class CutError(Exception):
    pass


def cut_at(what, done):
    """A report that ends the work at this point."""

    def report(doing, count, total, note=""):
        if (doing, count) == (what, done):
            raise CutError

    return report


@pytest.fixture(scope="module")
def case():
    return shared_toy(dtype=torch.float32), full_suite(dtype=torch.float32), toy_prompts(n=5)


@pytest.mark.parametrize(
    ("estimator", "what", "done"),
    [("ig", "node effects", 2), ("relp", "node effects", 5), ("exact", "edges", 4)],
)
def test_a_run_that_goes_on_ends_in_the_same_graph(case, tmp_path, estimator, what, done):
    model, suite, prompts = case
    config = dataclasses.replace(CONFIG, estimator=estimator)
    whole = discover(Analysis.of(model, suite, prompts, config))
    parts = DiscoveryParts(tmp_path)
    with pytest.raises(CutError):
        discover(Analysis.of(model, suite, prompts, config), parts=parts, report=cut_at(what, done))
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert files
    found = discover(Analysis.of(model, suite, prompts, config), parts=parts)
    assert json.dumps(as_json(found.graph)) == json.dumps(as_json(whole.graph))
    assert found.ranking == whole.ranking
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files} == files


def test_what_is_kept_is_not_done_again(case, tmp_path):
    """All gradients, of nodes and of edges, come from files."""
    model, suite, prompts = case
    parts = DiscoveryParts(tmp_path)
    taken = []

    def grad(block, given, out):
        taken.append(torch.is_grad_enabled())

    handle = model.blocks[1].register_forward_hook(grad)
    try:
        whole = discover(Analysis.of(model, suite, prompts, CONFIG), parts=parts)
        assert any(taken)
        taken.clear()
        again = discover(Analysis.of(model, suite, prompts, CONFIG), parts=parts)
        assert not any(taken)
    finally:
        handle.remove()
    assert as_json(again.graph) == as_json(whole.graph)


def test_parts_of_another_run_are_not_gone_on_with(tmp_path):
    first, other = {"config": {"nodes": 3}, "seed": 0}, {"config": {"nodes": 4}, "seed": 0}
    open_parts(tmp_path, first, resume=True, force=False)
    (tmp_path / UNFINISHED / "effects-0000.safetensors").write_text("[]")
    for resume, made_from, message in (
        (True, other, "holds the first 1 batches of another run, which was cut off: --force"),
        (False, other, "of another run"),
        (False, first, "of this run, which was cut off: --resume goes on with it, --force"),
    ):
        with pytest.raises(ValueError, match=message):
            open_parts(tmp_path, made_from, resume=resume, force=False)
    open_parts(tmp_path, first, resume=True, force=False)
    assert (tmp_path / UNFINISHED / "effects-0000.safetensors").exists()
    open_parts(tmp_path, other, resume=False, force=True)
    assert not (tmp_path / UNFINISHED / "effects-0000.safetensors").exists()
    close_parts(tmp_path)
    assert not (tmp_path / UNFINISHED).exists()


def test_a_run_folder_is_resumed_byte_for_byte_and_keeps_no_parts(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(make_prompts("agreement_nounpp", 4, split="test", seed=0, model="bundled",
                               out=prompts), prompts)  # fmt: skip
    inputs = Inputs.resolved("bundled", "bundled", prompts)
    config = DiscoverConfig(estimator="patching", nodes=5, batch_size=2)
    discover_run(inputs, tmp_path / "whole", config=config)
    cut = tmp_path / "cut"
    with pytest.raises(CutError):
        discover_run(inputs, cut, config=config, report=cut_at("edges", 2))
    assert not (cut / "graph.json").exists()
    with pytest.raises(ValueError, match="holds the first 2 batches of this run"):
        discover_run(inputs, cut, config=config)
    discover_run(inputs, cut, config=config, resume=True)
    assert (cut / "graph.json").read_bytes() == (tmp_path / "whole" / "graph.json").read_bytes()
    assert not (cut / UNFINISHED).exists()
    assert not (tmp_path / "whole" / UNFINISHED).exists()


def test_a_function_s_parts_are_not_kept(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    inputs = Inputs.resolved("bundled", "bundled", prompts)
    make_prompts("agreement_nounpp", 2, split="test", seed=0, model="bundled", out=prompts)
    config = DiscoverConfig(metric=lambda logits, rows: logits[:, 0])
    with pytest.raises(ValueError, match="metric is a Python function cannot be resumed"):
        discover_run(inputs, tmp_path / "run", config=config, resume=True)
