"""What a run finds is the same on another device, and the host seldom waits for it."""

from dataclasses import replace
from shutil import copytree

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.replacement import discover_replacement
from circuits.discovery.resume import DiscoveryParts
from circuits.discovery.sparse_feature import discover
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.edits.edited import graph_left
from circuits.graph import as_json, ordered
from circuits.metrics.readout import Readout
from circuits.prompts import encode_prompts, read_prompts
from circuits.runs.prompt_sets import make_prompts
from circuits.suites import evaluate_suite
from circuits.verification.sufficiency import SufficiencyConfig, sufficiency
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen import bundled
from hooked_qwen.load import hook, load
from hooked_qwen.nodes import Node
from hooked_qwen.placement import Placement, find_devices
from hooked_qwen.sites import Site
from hooked_qwen.spread import spread
from hooked_qwen.texts import texts_of
from saes.edit_file import Condition, Edit, Operation
from saes.formats import ours
from saes.formats.finding import find
from saes.formats.ours import Card, save_dictionary, save_suite_index
from saes.suite import Suite, load_suite
from tests.circuits.conftest import call
from tests.toys import full_suite, leaves, padded_on_the_left, toy_hf, toy_prompts, toy_suite

READOUT = Readout(site=Site("resid_post", 1), direction=torch.linspace(-1, 1, 24))
CONFIGS = {
    "ig": DiscoverConfig(nodes=20),
    "ig-inputs": DiscoverConfig(estimator="ig-inputs", positions="sum", batch_size=3, nodes=20),
    "patching": DiscoverConfig(estimator="patching", reference="mean", nodes=20),
    "relp": DiscoverConfig(estimator="relp", metric="log-probability", nodes=20),
    "exact": DiscoverConfig(estimator="exact", reference="zero", nodes=20, edge_steps=2),
    "kl": DiscoverConfig(metric="kl", influence=0.8, nodes=20),
    "feature": DiscoverConfig(metric="feature:resid_post.2/3", estimator="patching", nodes=20),
    "readout": DiscoverConfig(metric=READOUT, positions="end", nodes=20),
}


def toy_on(device):
    """The toy on a device, or with its layers over several."""
    model = toy_hf(dtype=torch.float32)
    if "," not in device:
        return hook(model, name="toy").to(device)
    spread(model, find_devices(device))
    return hook(model, name="toy")


def everything(device, config, level):
    """Graph, verification and ablations, as plain values; how much of the last two is by level."""
    model = toy_on(device)
    suite, prompts = full_suite(dtype=torch.float32), toy_prompts(n=4, length=4)
    if config.positions != "keep":
        prompts = padded_on_the_left(prompts)
    analysis = Analysis.of(model, suite, prompts, config)
    found = discover(analysis)
    graph, ranking = found.graph, found.ranking
    checked = VerifyConfig(draws=1, pool=5, level=level)
    held_out = prompts if config.estimator.startswith("ig") else None
    record = verify(analysis, graph, ranking, config=checked, held_out=held_out)
    nodes = tuple(n for n in ordered(graph) if n.kind == "feature")[:3]
    ablated = []
    for to in ("patch", "mean") if level == "full" else (config.reference,):
        edit = edits.Ablation(ablated=nodes, to=to)
        ablated.append(ablate(analysis, edit, ranking))
        left = graph_left(analysis, edit, graph)
        ablated.append(as_json(left))
    return as_json(graph), record, ablated


@pytest.mark.parametrize("name", CONFIGS)
def test_every_step_is_the_same_on_another_device(other, name):
    config, level = CONFIGS[name], "full" if name == "ig" else "quick"
    with other.complaining():
        there = everything(other.name, config, level)
    other.agrees(there, everything("cpu", config, level))


def transcoders_on(device, **config):
    """An analysis of the toy by transcoders in every layer, for replacement graphs."""
    names = [f"mlp_in.{layer}-mlp_out.{layer}" for layer in range(3)]
    suite = toy_suite(*names, dtype=torch.float32)
    asked = DiscoverConfig(method="replacement", **{"nodes": 30} | config)
    # Before the first difference effects are zero but for rounding, which then orders the nodes.
    prompts = toy_prompts(n=2, length=4, at=0)
    return Analysis.of(toy_on(device), suite, prompts, asked)


def test_dictionaries_that_are_let_go_come_back_from_the_host(pretend, tmp_path):
    """Stored in half precision, with room for one on the device: each file is read once."""
    for one in full_suite(dtype=torch.float32).values():
        save_dictionary(one, tmp_path / one.spec.name, card=Card(), dtype=torch.bfloat16)
    save_suite_index(tmp_path, [path.name for path in tmp_path.iterdir()])
    read, files = [], find(tmp_path)

    def noted(entry):
        read.append(entry.node_name)
        return files.layout.load(entry)

    counted = replace(files, layout=replace(files.layout, load=noted))
    entries = {entry.node_name: entry for entry in files.entries}

    def found(device, memory):
        suite, prompts = Suite({}, entries, counted, memory), toy_prompts(n=4, length=4)
        config = DiscoverConfig(estimator="patching", batch_size=2, nodes=20)
        return as_json(discover(Analysis.of(toy_on(device), suite, prompts, config)).graph)

    with pretend.strict_index():
        there = found("pretend", 1e-9)
    assert sorted(read) == sorted(full_suite())
    assert there == found("cpu", None)


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_a_replacement_graph_is_the_same_on_another_device(other, positions):
    def found(device):
        return as_json(discover_replacement(transcoders_on(device, positions=positions)).graph)

    with other.complaining():
        there = found(other.name)
    other.agrees(there, found("cpu"))


def test_what_holds_a_replacement_graph_is_the_same_on_another_device(other):
    def found(device):
        analysis = transcoders_on(device)
        discovery = discover_replacement(analysis)
        checked = VerifyConfig(draws=1, pool=5, level="quick")
        record = verify(analysis, discovery.graph, discovery.ranking, config=checked)
        return as_json(discovery.graph), record

    with other.complaining():
        there = found(other.name)
    other.agrees(there, found("cpu"))


def test_paths_and_kept_features_are_the_same_on_another_device(other):
    def found(device):
        by_paths = discover_replacement(transcoders_on(device, nodes=100, paths=20)).graph
        few = SufficiencyConfig(sizes=(2, 5), draws=1)
        return as_json(by_paths), sufficiency(transcoders_on(device, positions="sum"), few)

    with other.complaining():
        there = found(other.name)
    other.agrees(there, found("cpu"))


def under_an_edit(device):
    """The graph under an edit of every operation, as plain values."""
    model = toy_on(device)
    suite, prompts = full_suite(dtype=torch.float32), toy_prompts(n=4, length=4)
    config = DiscoverConfig(estimator="patching", nodes=20)
    analysis = Analysis.of(model, suite, padded_on_the_left(prompts), config)
    graph = discover(analysis).graph
    a, b, c, d, e = (Node("resid_post.1", i) for i in range(5))
    when = Condition(node=Node("resid_post.0", 3), above=0.1)
    below = ((Site("resid_post", 1), 1e3),)
    operations = (
        Operation(node=a, do="zero", norm_below=below),
        Operation(node=b, do="mean"),
        Operation(node=c, do="patch", positions="last"),
        Operation(node=d, do="clamp", value=(-1.0, 0.5), when=when),
        Operation(node=e, do="add", value=0.5, positions=(1, 2)),
        Operation(node=Node("mlp_out.2", "*"), do="scale", value=0.5),
        Operation(node=Node("mlp_out.0", "error"), do="scale", value=2.0),
    )
    return as_json(graph_left(analysis, Edit(operations=operations, means={b: 0.25}), graph))


def test_the_graph_under_an_edit_is_the_same_on_another_device(other):
    with other.complaining():
        there = under_an_edit(other.name)
    other.agrees(there, under_an_edit("cpu"))


def test_what_is_kept_of_a_run_goes_on_where_the_model_is(other, tmp_path):
    model, suite = toy_on(other.name), full_suite(dtype=torch.float32)
    analysis = Analysis.of(model, suite, toy_prompts(n=4, length=4), CONFIGS["ig"])
    with other.complaining():
        rank_nodes(analysis, parts=DiscoveryParts(tmp_path))
        kept = discover(analysis, parts=DiscoveryParts(tmp_path))
    other.agrees(as_json(kept.graph), as_json(discover(analysis).graph))


def test_every_step_is_the_same_over_two_devices(pretend):
    with pretend.strict_index():
        there = everything("cpu,pretend:0", CONFIGS["relp"], "quick")
    here = everything("cpu", CONFIGS["relp"], "quick")
    # Gradients that meet in the stream are added up as the devices' threads bring them.
    for found, expected in zip(leaves(there), leaves(here), strict=True):
        is_number = isinstance(expected, float)
        assert found == (pytest.approx(expected, 1e-3, 1e-3) if is_number else expected)


@pytest.mark.parametrize("name", ["ig", "exact", "feature"])
def test_a_graph_found_over_two_devices_is_that_of_one(pretend, name):
    suite, prompts = full_suite(dtype=torch.float32), toy_prompts(n=3, length=4)
    found = []
    for devices in ("pretend:0,cpu", "cpu"):
        analysis = Analysis.of(toy_on(devices), suite, prompts, CONFIGS[name])
        graph = discover(analysis).graph
        found.append(leaves(as_json(graph)))
    for there, here in zip(*found, strict=True):
        assert there == (pytest.approx(here, 1e-3, 1e-3) if isinstance(here, float) else here)


def test_the_host_seldom_waits(pretend, tmp_path):
    """On the bundled model, in two batches; the checks of eight prompts wait as those of forty."""
    file = tmp_path / "prompts.jsonl"
    make_prompts("agreement_nounpp", 40, split="train", seed=0, model="bundled", out=file)
    with pretend.watch() as seen:
        done = call("discover", file, "--device", "pretend", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "40 prompts" in done.output
    # With as many texts for cards as a user has it was 122: 150 are allowed.
    assert seen.of("sync").total() <= 120
    model, suite = load("bundled", device="pretend"), load_suite("bundled")
    few = encode_prompts(read_prompts(file)[:8], model.tokenizer, positions="keep")
    analysis = Analysis.of(model, suite, few, DiscoverConfig(batch_size=4))
    found = discover(analysis)
    with pretend.watch() as seen:
        verify(analysis, found.graph, found.ranking)
    assert seen.of("sync").total() <= 670


def test_an_evaluation_seldom_waits(pretend, tmp_path):
    """At the default number of tokens; how many dictionaries there are adds nothing."""
    names = ["resid_post.2", "mlp_in.2-mlp_out.2"]
    for name in names:
        copytree(bundled.DICTIONARIES / name, tmp_path / name)
    ours.save_suite_index(tmp_path, names)
    english = texts_of(["bundled"])
    with pretend.watch() as seen:
        record = evaluate_suite(
            str(tmp_path), "bundled", english, 4096, placement=Placement(device="pretend")
        )
    assert {"joint", "mlps"} <= record.keys()
    assert seen.of("sync").total() <= 100
