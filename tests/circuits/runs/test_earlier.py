"""Graphs that do not say their prompts are told them, of a prompt file that is still the same."""

import json

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.runs.earlier import PAIRS, told
from hooked_qwen.files import content_hash

KEYS = {"clean": "The keys  near it", "patch": "The key near it", "answer": " are", "wrong": " is"}
KEY = {"clean": "The key near it", "patch": None, "answer": " is", "wrong": None}
OUTPUT = Node("logit", "answer - wrong")


@pytest.fixture
def manifest_of(tmp_path):
    def of(*prompts):
        path = tmp_path / "agreement.jsonl"
        path.write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
        return {"prompts_path": str(path), "prompts_hash": content_hash(path)}

    return of


def graph_of(metric="logit-difference", **answers):
    graph = nx.DiGraph(metric=metric, answers={"of": "prompts", "of_several_tokens": 0, **answers})
    graph.add_node(OUTPUT, kind="logit", label="before")
    return graph


def test_a_graph_is_told_its_task_and_first_prompt_in_words(manifest_of):
    graph = graph_of()
    found = told(graph, manifest_of(KEYS, KEY))
    assert found.graph["task"] == "agreement"
    assert found.graph["example"] == {
        "clean": ["The", " keys", "  near", " it"],
        "patch": ["The", " key", " near", " it"],
        "answer": [" are"],
        "wrong": [" is"],
    }
    assert told(graph, manifest_of(KEY)).graph["example"]["patch"] is None
    assert "example" not in graph.graph
    assert graph.nodes[OUTPUT]["label"] == "before"


@pytest.mark.parametrize("text", ["The keys", " The  keys \n", "钥匙 near", "a"])
def test_words_of_a_text_make_the_text(manifest_of, text):
    example = told(graph_of(), manifest_of({**KEYS, "clean": text})).graph["example"]
    assert "".join(example["clean"]) == text


def test_pairs_of_answers_come_by_their_share_and_name_the_output(manifest_of):
    found = told(graph_of(), manifest_of(KEY, KEYS, KEYS, KEYS))
    assert found.graph["answers"]["pairs"] == [[[" are"], [" is"], 0.75], [[" is"], [], 0.25]]
    assert found.graph["answers"]["other_pairs"] == 0
    assert found.graph["answers"]["of"] == "prompts"
    assert found.nodes[OUTPUT]["label"] == "are − is, is"
    other = told(graph_of(metric="kl-divergence"), manifest_of(KEYS))
    assert other.nodes[OUTPUT]["label"] == "before", "another metric is of no pair"


def test_pairs_beyond_the_most_frequent_are_counted(manifest_of):
    prompts = [{**KEYS, "answer": f" {i}"} for i in range(PAIRS + 3)]
    answers = told(graph_of(), manifest_of(*prompts)).graph["answers"]
    assert len(answers["pairs"]) == PAIRS
    assert answers["other_pairs"] == 3


@pytest.mark.parametrize("answers", [{"of": "model"}, {"of_several_tokens": 1}])
def test_answers_that_prompts_do_not_say_alone_stay_as_they_are(manifest_of, answers):
    graph = graph_of(**answers)
    found = told(graph, manifest_of(KEYS))
    assert found.graph["answers"] == graph.graph["answers"]
    assert found.nodes[OUTPUT]["label"] == "before"
    assert found.graph["task"] == "agreement"


def test_nothing_is_told_where_it_is_known_or_the_file_is_another(manifest_of, tmp_path):
    graph = graph_of()
    manifest = manifest_of(KEYS)
    known = graph_of()
    known.graph["example"] = {"clean": ["mine"]}
    assert told(known, manifest) is known
    assert told(graph, {}) is graph
    assert told(graph, {**manifest, "prompts_path": str(tmp_path / "gone.jsonl")}) is graph
    assert told(graph, {**manifest, "prompts_path": str(tmp_path)}) is graph
    assert told(graph, manifest) is not graph
    manifest_of(KEY)
    assert told(graph, manifest) is graph
