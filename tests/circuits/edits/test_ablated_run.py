"""A batch of prompts under an ablation, before it becomes a state."""

import dataclasses

import pytest
import torch

from circuits.edits.ablated_run import ablated_run
from circuits.edits.ablation import Ablation
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.sites import Site
from tests.circuits.dense import dense
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts

SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=4))


def strongest(analysis, n=3):
    on = dense(analysis.states[0], SITE).f.sum((0, 1))
    return tuple(Node(str(SITE), i) for i in on.topk(n).indices.tolist())


def test_rows_are_run_as_they_are_among_all(analysis):
    edit = Ablation(ablated=strongest(analysis), to="patch")
    every = ablated_run(analysis, edit, torch.arange(4))
    some = ablated_run(analysis, edit, torch.tensor([3, 1]))
    assert torch.equal(some.batch.tokens, analysis.prompts.clean.tokens[[3, 1]])
    torch.testing.assert_close(some.nodes.clean.run.logits, every.nodes.clean.run.logits[[3, 1]])


@pytest.mark.parametrize("to", ["zero", "mean", "patch"])
def test_its_context_puts_the_ablation_into_any_pass_of_its_prompts(analysis, to):
    edit = Ablation(ablated=strongest(analysis), to=to)
    run = ablated_run(analysis, edit, torch.arange(4))
    index = torch.tensor([2, 0, 2])
    with torch.no_grad(), run.under(index):
        logits = last_logits(analysis.model, run.batch.rows(index))
    torch.testing.assert_close(logits, run.nodes.clean.run.logits[index])
    with torch.no_grad():
        plain = last_logits(analysis.model, run.batch.rows(index))
    assert not torch.allclose(plain, logits)


def test_ablated_features_are_held_and_no_others_and_errors_where_they_are_ablated(analysis):
    cut = (Node(str(SITE), 4), Node(str(SITE), 7, 2), Node(str(SITE), "error", 3))
    run = ablated_run(analysis, Ablation(ablated=cut), torch.arange(4))
    nodes = run.nodes.clean.encoded[str(SITE)]
    held = run.held(str(SITE), nodes)
    columns = torch.arange(6)[:, None]
    assert torch.equal(held, (nodes.index == 4) | ((nodes.index == 7) & (columns == 2)))
    errors = run.held_errors(SITE)
    assert torch.equal(errors, (torch.arange(6) == 3).expand(4, 6))
    assert not run.held_errors(Site("mlp_out", 0)).any()


def test_what_is_kept_leaves_all_else_at_zero(analysis):
    kept = (Node(str(SITE), 4), Node(str(SITE), "error"))
    run = ablated_run(analysis, Ablation(kept=kept), torch.arange(4))
    for name, f in run.nodes.clean.features.items():
        on = f.dense()
        if name == str(SITE):
            on[..., 4] = 0
        assert not on.any(), name


def test_without_a_patch_nothing_goes_to_it(analysis):
    alone = dataclasses.replace(analysis.prompts, patch=None)
    of_clean = analysis_of(analysis.model, analysis.suite, alone, reference="zero")
    with pytest.raises(ValueError, match="the prompts have no patch"):
        ablated_run(of_clean, Ablation(ablated=strongest(analysis), to="patch"), torch.arange(4))
