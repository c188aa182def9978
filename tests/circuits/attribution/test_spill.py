"""However many prompts there are, only some of their states and gradients are in memory."""

from functools import partial

import pytest
import torch

from circuits.analysis import Analysis
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.spill import Spill
from circuits.attribution.state import States, batches
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.graph import as_json
from hooked_qwen.sites import Site
from saes.suite import Suite
from tests.toys import full_suite, shared_toy, toy_prompts

SITES = (Site("embed"), Site("mlp_out", 1))


@pytest.fixture(scope="module")
def three():
    """Three batches of two prompts, and the bytes of each."""
    found = batches(
        shared_toy(dtype=torch.float32), full_suite(dtype=torch.float32), toy_prompts(n=6),
        reference="patch", batch_size=2,
    )  # fmt: skip
    return [found[i] for i in range(3)], found[0].size()


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (1, 1), (2, 2), (5, 3)])
def test_batches_are_kept_as_far_as_they_fit_and_else_made_again(three, room, kept):
    made, size = three
    asked = []

    def make(i):
        asked.append(i)
        return made[i]

    states = States([partial(make, i) for i in range(3)], keep=room * size + size / 2)
    for _ in range(2):
        assert all(state is made[i] for i, state in enumerate(states))
    # One that does not fit stays while it is the last that was asked for.
    again = list(range(kept, 3)) if kept < 2 else []
    assert asked == [0, 1, 2, *again]
    assert states[-1] is made[2]
    assert asked == [0, 1, 2, *again]


def gradients(n):
    generator = torch.Generator().manual_seed(0)
    return [{s: torch.randn(2, 3, 4, generator=generator) for s in SITES} for _ in range(n)]


def test_gradients_that_do_not_fit_are_files_and_come_back_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = gradients(4)
    spill = Spill(keep=2.5 * sum(g.nbytes for g in given[0].values()))
    for item in given:
        spill.append(item)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert len(spill) == 4
    for found, expected in zip(spill, given, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[site], expected[site]) for site in SITES)
    del spill
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_discovery_without_room_is_the_same(estimator):
    model, suite, prompts = (
        shared_toy(dtype=torch.float32),
        full_suite(torch.float32),
        toy_prompts(n=6),
    )
    config = DiscoverConfig(batch_size=2, nodes=20, estimator=estimator, steps=2)
    plenty = discover(Analysis.of(model, suite, prompts, config))
    without = Suite(suite, {}, memory=1e-12)
    found = discover(Analysis.of(model, without, prompts, config))
    assert as_json(found.graph) == as_json(plenty.graph)
