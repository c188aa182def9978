"""Analyses of toys that ask for replacement graphs, and what is held of every such graph."""

import json
from dataclasses import replace

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replacement import discover_replacement
from circuits.graph import as_json
from circuits.metrics.answers import with_own_answers
from circuits.prompts import EncodedPrompts
from tests.toys import (
    shared_toy,
    speaking_toy,
    toy_suite,
)

EXACT, MODELS = 1e-10, 1e-5
LENGTH = 4
SITES = ("mlp_in.0-mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_in.2-mlp_out.2")


def rows_of(prompts: EncodedPrompts, rows: list[int]) -> EncodedPrompts:
    take = torch.tensor(rows)
    return replace(
        prompts,
        prompts=tuple(prompts.prompts[i] for i in rows),
        clean=prompts.clean.rows(take),
        patch=None if prompts.patch is None else prompts.patch.rows(take),
        answer_ids=tuple(prompts.answer_ids[i] for i in rows),
        wrong_ids=tuple(prompts.wrong_ids[i] for i in rows),
    )


def analysis(prompts, suite=None, model=None, **config):
    config = {"method": "replacement", "nodes": None, "reference": "zero", **config}
    model, suite = model or shared_toy(), suite or toy_suite(*SITES)
    return Analysis.of(model, suite, prompts, DiscoverConfig(**config))


def graph_of(prompts, suite=None, model=None, **config):
    return discover_replacement(analysis(prompts, suite, model, **config)).graph


def speaking(family="qwen3"):
    """A toy model with a tokenizer."""
    return speaking_toy(family)


def unanswered(prompts, model):
    """The same without answers: the model's own take their place."""
    n = len(prompts)
    nothing = replace(prompts, answer_ids=((),) * n, wrong_ids=((),) * n)
    return with_own_answers(model, nothing)


def check_sums(graph):
    targets = [n for n, data in graph.nodes(data=True) if "pre_activation" in data]
    assert {node.kind for node in targets} == {"feature", "logit"}
    for node in targets:
        data = graph.nodes[node]
        incoming = sum(weight for _, _, weight in graph.in_edges(node, data="weight"))
        # Numbers of nodes are rounded as the file has them.
        assert data["pre_activation"] == pytest.approx(data["bias"] + incoming, rel=1e-6, abs=1e-6)


def text_of(graph):
    return json.dumps(as_json(graph))
