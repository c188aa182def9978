"""Dictionaries are in memory one at a time, where there is room for one."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation, apply
from circuits.edits.edited import graph_left
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.forward import last_logits
from saes.formats import ours
from saes.suite import Suite, load_suite
from tests.conftest import full_suite, toy, toy_prompts


class Watched(Suite):
    """A suite that remembers how many dictionaries' weights were there together."""

    def __getitem__(self, name):
        found = super().__getitem__(name)
        weights.add(StorageWeakRef(found.W_dec.untyped_storage()))
        weights.difference_update([known for known in weights if known.expired()])
        together.append(len(weights))
        return found


weights: set[StorageWeakRef] = set()
together: list[int] = []


@pytest.fixture
def analysis(tmp_path):
    model = toy(dtype=torch.float32)
    ours.save(full_suite(torch.float32).values(), tmp_path)
    suite = load_suite(tmp_path, memory=1e-9)
    suite.__class__ = Watched
    weights.clear()
    together.clear()
    config = DiscoverConfig(batch_size=2, nodes=20, steps=2)
    return Analysis.of(model, suite, toy_prompts(n=4, length=6), config)


@pytest.mark.parametrize("to", ["mean", "patch", "zero"])
def test_every_verb_holds_one_dictionary_at_a_time(analysis, to):
    found = discover(analysis)
    config = VerifyConfig(level="quick", to=to)
    verify(analysis, found.graph, found.ranking, config=config)
    strongest = tuple(node for node, _ in found.ranking[:5] if node.kind == "feature")
    ablation = Ablation(ablated=strongest, to=to)
    ablate(analysis, ablation, found.ranking)
    graph_left(analysis, ablation, found.graph)
    with apply(analysis, Ablation(ablated=(strongest[0]._replace(position=None),), to=to)):
        last_logits(analysis.model, analysis.prompts.clean)
    assert together, "dictionaries were read"
    assert max(together) == 1
