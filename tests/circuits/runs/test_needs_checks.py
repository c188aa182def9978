"""Passes of checks that are counted before they are run, held against those that are run."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from circuits.ablation.faithfulness import default_to
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import graph_left
from circuits.runs.estimate import task_of
from circuits.runs.needs_checks import (
    Checked,
    ablate_memory,
    ablate_passes,
    bases,
    together,
    verify_memory,
    verify_passes,
)
from circuits.runs.needs_passes import PassCounter, Passes
from circuits.verification.verify import VerifyConfig, verify
from tests.circuits.runs.toy_shapes import shapes_of
from tests.toys import SIZES, toy_prompts

SINGLE = ("exact effects", "exact edges")
ESTIMATORS = ("ig", "ig-inputs", "patching")


class Run:
    """MLPs that were run, and the tokens that went through them, while `counts` says so."""

    mlps = tokens = 0

    def __init__(self, counts=lambda: True):
        self.counts = counts

    @contextmanager
    def watching(self, model):
        def note(_, args, kwargs):
            if not self.counts():
                return
            x = args[0] if args else kwargs["hidden_states"]
            self.mlps += 1
            self.tokens += x.shape[0] * x.shape[1]

        # Hooks before a module, as those after it make a pass run all that it could leave out.
        handles = [b.mlp.register_forward_pre_hook(note, with_kwargs=True) for b in model.blocks]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def counted(passes, leaving=()):
    """The same as estimated."""
    those = [one for one in passes if one.name not in leaving]
    return sum(one.mlps for one in those), sum(one.tokens for one in those)


def case(model, suite, cost, n, config):
    prompts = toy_prompts(n, length=6)
    analysis = Analysis.of(model, suite, prompts, config)
    found = discover(analysis)
    task = task_of(prompts, config, text=0)
    counter = PassCounter(cost, suite, shapes_of(suite), task)
    groups = [list(found.graph)[:2], [n for n in found.graph if n.kind == "error"][:3]]
    run = Checked(counter=counter, graph=found.graph, ranking=found.ranking, groups=groups)
    return Analysis.of(model, suite, prompts, config), found, run


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("to", ["mean", "zero"])
def test_of_a_pair_every_pass_of_a_quick_verification_is_counted(model, suite, cost, estimator, to):
    """Of one pair every node of the graph moves."""
    config = DiscoverConfig(estimator=estimator, nodes=30, steps=3)
    analysis, found, run = case(model, suite, cost, 1, config)
    asked = VerifyConfig(level="quick", to=to)
    with Run().watching(model) as ran:
        verify(analysis, found.graph, found.ranking, config=asked, groups=run.groups)
    assert counted(verify_passes(run, asked, to)) == (ran.mlps, ran.tokens)


@pytest.mark.parametrize("estimator", ["ig", "ig-inputs"])
def test_all_passes_but_those_of_single_nodes_are_counted(model, suite, cost, estimator):
    """Which nodes others choose for the pool is not known, nor on which prompts a node moves.

    Those passes are told apart by the progress, and from gradients between them by having none.
    """
    stage = [""]

    def report(what, done, total, note=""):
        stage[0] = "" if (what, done) == ("exact edges", total) else what

    single = Run(lambda: stage[0] in SINGLE and not torch.is_grad_enabled())
    config = DiscoverConfig(estimator=estimator, nodes=20, steps=3, batch_size=4)
    analysis, found, run = case(model, suite, cost, 7, config)
    asked = VerifyConfig(draws=2)
    to = default_to(analysis.prompts)
    with Run().watching(model) as ran, single.watching(model):
        verify(analysis, found.graph, found.ranking, config=asked, groups=run.groups, report=report)
    passes = verify_passes(run, asked, to)
    expected = counted(passes, leaving=SINGLE)
    assert expected == (ran.mlps - single.mlps, ran.tokens - single.tokens)
    of_nodes = counted([one for one in passes if one.name in SINGLE])
    assert single.tokens <= of_nodes[1] < 2 * single.tokens


@pytest.mark.parametrize("metric", ["logit-difference", "log-probability"])
@pytest.mark.parametrize("to", ["mean", "patch"])
@pytest.mark.parametrize("estimator", ["ig", "patching"])
def test_the_passes_of_an_ablation_are_counted(model, suite, cost, estimator, to, metric):
    config = DiscoverConfig(estimator=estimator, nodes=20, steps=3, batch_size=4, metric=metric)
    analysis, found, run = case(model, suite, cost, 5, config)
    edit = Ablation(ablated=tuple(n for n in found.graph if n.kind == "feature")[:3], to=to)
    with Run().watching(model) as ran:
        result = ablate(analysis, edit, found.ranking)
        graph_left(analysis, edit, found.graph)
    assert len(result["controls"]) == 2, "both kinds are there"
    assert counted(ablate_passes(run, edit)) == (ran.mlps, ran.tokens)


def test_to_ablate_all_outside_the_graph_has_one_kind_of_control(model, suite, cost):
    config = DiscoverConfig(estimator="patching", nodes=20, reference="mean")
    analysis, found, run = case(model, suite, cost, 3, config)
    edit = Ablation(kept=tuple(n for n in found.graph if n.kind != "logit"), to="zero")
    with Run().watching(model) as ran:
        ablate(analysis, edit, found.ranking)
        graph_left(analysis, edit, found.graph)
    assert counted(ablate_passes(run, edit)) == (ran.mlps, ran.tokens)


def test_batches_that_are_not_kept_are_run_for_every_loop_over_the_prompts(model, suite, cost):
    config = DiscoverConfig(estimator="patching", nodes=10, batch_size=2)
    _, _, run = case(model, suite, cost, 6, config)
    asked = VerifyConfig(level="quick")

    def states(memory):
        passes = verify_passes(replace(run, memory=memory), asked, "zero")
        return next(one for one in passes if one.name == "states of the prompts")

    # Clean and patch of three batches; two ends, one loop for effects and edges, four rows, what
    # each adds, and two for groups.
    assert states(1.0).count == 2 * 3
    assert states(1e-9).count == 2 * 3 * (2 + 1 + 4 + 1 + 2)


def test_passes_of_one_name_are_one_and_those_that_are_none_are_left_out():
    one, other = Passes(name="a", count=1, tokens=3), Passes(name="b", count=2)
    found = together([one, Passes(name="none"), other, replace(one, tokens=4)])
    assert found == [replace(one, count=2, tokens=7), other]


def test_a_full_verification_takes_more_memory_than_a_quick_one(model, suite, cost):
    config = DiscoverConfig(estimator="patching", nodes=10)
    _, _, run = case(model, suite, cost, 3, config)
    quick, full = (verify_memory(run, VerifyConfig(level=level)) for level in ("quick", "full"))
    assert quick.total < full.total
    assert full.dictionaries > 2 * quick.dictionaries, "untrained ones are as large"
    assert "circuits of coordinates" in {item.name for item in full.working}
    assert ablate_memory(run).total >= quick.total


def test_a_circuit_is_held_against_coordinates_neurons_and_untrained_dictionaries(
    model, suite, cost
):
    run = case(model, suite, cost, 1, DiscoverConfig(estimator="patching", nodes=5))[-1]
    tensors, neurons, mixed, untrained = bases(run.counter)
    assert set(tensors.coordinates) == set(suite.writes)
    assert set(tensors.coordinates.values()) == {SIZES["hidden_size"]}
    hidden = {s for s, width in neurons.coordinates.items() if width == SIZES["intermediate_size"]}
    assert {site.kind for site in hidden} == {"mlp_hidden"}
    assert set(mixed.coordinates) == hidden
    assert untrained.shapes == run.counter.shapes
