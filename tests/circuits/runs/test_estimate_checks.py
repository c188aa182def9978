"""`verify --dry-run` and `ablate --dry-run`: what is counted, held against what is run."""

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
from circuits.runs.needs_checks import Checked, ablate_passes, verify_passes
from circuits.runs.needs_passes import PassCounter
from circuits.verification import verify as verification
from circuits.verification.verify import VerifyConfig, verify
from tests.circuits.runs.test_estimate import cost, model, shapes_of, suite
from tests.toys import toy_prompts

__all__ = ["cost", "model", "suite"]
ESTIMATORS = ("ig", "ig-inputs", "patching")


class Run:
    """MLPs that were run, and the tokens that went through them."""

    mlps = tokens = 0

    @contextmanager
    def watching(self, model):
        def note(_, args, kwargs):
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


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_passes_but_those_of_single_nodes_are_counted(
    model, suite, cost, estimator, monkeypatch
):
    """Which nodes others choose for the pool is not known, nor on which prompts a node moves."""
    single = Run()

    def alone(name):
        made = getattr(verification, name)

        def watched(*given, **named):
            with single.watching(model):
                return made(*given, **named)

        monkeypatch.setattr(verification, name, watched)

    alone("exact_effects")
    alone("exact_edges")
    config = DiscoverConfig(estimator=estimator, nodes=20, steps=3, batch_size=4)
    analysis, found, run = case(model, suite, cost, 7, config)
    asked = VerifyConfig(draws=2)
    to = default_to(analysis.prompts)
    with Run().watching(model) as ran:
        verify(analysis, found.graph, found.ranking, config=asked, groups=run.groups)
    passes = verify_passes(run, asked, to)
    expected = counted(passes, leaving=("exact effects", "exact edges"))
    assert expected == (ran.mlps - single.mlps, ran.tokens - single.tokens)
    of_nodes = counted([one for one in passes if one.name in ("exact effects", "exact edges")])
    assert single.tokens <= of_nodes[1] < 2 * single.tokens
