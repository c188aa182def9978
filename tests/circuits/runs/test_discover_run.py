"""`discover_run`: what it takes, writes and gives back."""

import json

import pytest
import torch

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.features.names import name_of_card
from circuits.graph import as_json, load
from circuits.prompt_files import prompt_lines
from circuits.runs.discover_run import discover_run, identified, label_features
from circuits.runs.inputs import Inputs
from tests.circuits.runs.pair import PAIR
from tests.toys import analysis_of, full_suite, speaking_toy, toy_prompts


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


CONFIG = DiscoverConfig(estimator="patching", nodes=5)


def test_a_run_is_written_as_it_was_found_and_keeps_the_prompts_it_was_given(small_run):
    folder, found, told = small_run
    assert (folder / "prompts.jsonl").read_text() == prompt_lines([PAIR])
    assert as_json(load(folder / "run" / "graph.json")) == as_json(found.graph)
    manifest = read(folder / "run" / "manifest.json")
    assert (manifest["seed"], manifest["command"]) == (5, ["circuits", "discover"])
    assert {"node effects", "edges", "examples"} <= set(told)


def test_every_feature_is_called_what_its_card_says(small_run):
    folder, found, _ = small_run
    cards = read(folder / "run" / "cards.json")
    features = [n for n in found.graph if n.kind == "feature"]
    assert features
    for node in features:
        assert found.graph.nodes[node]["label"] == name_of_card(
            cards[f"{node.site}/{node.feature}"]
        )


def test_prompts_given_replace_no_file_of_others(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("mine")
    inputs = Inputs.resolved("bundled", "bundled", path)
    with pytest.raises(ValueError, match=r"prompts\.jsonl is there already"):
        discover_run(inputs, tmp_path / "run", config=CONFIG, given=[PAIR])
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["prompts.jsonl"]


def last_logit(logits, rows):
    return logits[:, 0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DiscoverConfig(metric=last_logit, nodes=5), "Python function cannot be resumed: its par"),
        (DiscoverConfig(method="replacement", reference="zero"), "run it without --resume"),
    ],
)
def test_what_keeps_no_parts_is_not_resumed(tmp_path, config, message):
    mlp = "transcoder" if config.method == "replacement" else "sae"
    inputs = Inputs.resolved("bundled", "bundled", tmp_path / "prompts.jsonl", mlp)
    with pytest.raises(ValueError, match=message):
        discover_run(inputs, tmp_path / "run", config=config, given=[PAIR], resume=True)
    assert not (tmp_path / "run").exists()


def test_numbers_are_the_same_to_the_last_bit_by_model_versions_device_and_threads():
    model = speaking_toy(dtype=torch.float32)
    found = identified(model, {"seed": 3})
    assert found["seed"] == 3
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert {"model_hash", "versions"} < found.keys()
    assert found["model_hash"] != identified(speaking_toy("qwen2", torch.float32), {})["model_hash"]


def test_features_of_a_graph_take_the_names_of_cards_of_the_prompts():
    model = speaking_toy(dtype=torch.float32)
    analysis = analysis_of(model, full_suite(torch.float32), toy_prompts(2), nodes=4)
    graph = discover(analysis).graph
    cards = label_features(analysis, graph, None)
    features = [node for node in graph if node.kind == "feature"]
    assert cards.keys() == {f"{node.site}/{node.feature}" for node in features}
    for node in features:
        assert graph.nodes[node]["label"] == name_of_card(cards[f"{node.site}/{node.feature}"])
