"""A batch of prompts under operations: how far each feature responds, and what is refused."""

import dataclasses

import pytest
import torch

from circuits.edits.operated_run import (
    check_operations,
    edited_errors,
    edited_names,
    operated_run,
)
from hooked_qwen.forward import last_logits
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from saes.suite import Suite
from tests.circuits.test_several_sites import cross_layer, crosscoder
from tests.toys import SIZES, analysis_of, full_suite, shared_toy, toy_prompts

SITE = Site("resid_post", 1)
ROWS = torch.arange(3)


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=3))


def edit_of(*operations):
    made = (Operation(node=Node.parse(node), do=do, **more) for node, do, more in operations)
    return Edit(operations=tuple(made))


def test_features_respond_by_their_factor_pinned_ones_are_held():
    zero = analysis_of(shared_toy(), full_suite(), toy_prompts(n=3), reference="zero")
    edit = edit_of(
        (f"{SITE}/3", "scale", {"value": -2.0}),
        (f"{SITE}/5", "add", {"value": 1.0}),
        (f"{SITE}/8", "set", {"value": 4.0}),
        (f"{SITE}/error", "scale", {"value": 0.25}),
    )
    run = operated_run(zero, edit, ROWS)
    found = run.responses[str(SITE)].dense()
    expected = torch.zeros(20, dtype=found.dtype)
    expected[[3, 8]] = torch.tensor([-3.0, -1.0], dtype=found.dtype)
    torch.testing.assert_close(found, expected.expand_as(found))
    encoded = run.nodes.clean.encoded[str(SITE)]
    assert torch.equal(run.held(str(SITE), encoded), encoded.index == 8)
    torch.testing.assert_close(run.error_responses[SITE], torch.full((3, 6), 0.25).double())
    assert not run.held_errors(SITE).any()


def test_its_context_puts_the_edit_into_any_pass_of_its_prompts(analysis):
    edit = edit_of((f"{SITE}/*", "patch", {}), (f"{SITE}/error", "zero", {}))
    run = operated_run(analysis, edit, ROWS)
    index = torch.tensor([2, 0, 2])
    with torch.no_grad(), run.under(index):
        logits = last_logits(analysis.model, run.batch.rows(index))
    torch.testing.assert_close(logits, run.nodes.clean.run.logits[index])


def test_what_an_edit_names_is_listed_once_and_errors_in_the_models_order():
    edit = edit_of(
        ("resid_post.2/error", "zero", {}),
        ("mlp_out.0/error", "zero", {}),
        ("resid_post.1/4", "zero", {}),
        ("attn_out.0/4", "zero", {}),
        ("resid_post.1/*", "zero", {}),
    )
    assert edited_errors(edit) == [Site("mlp_out", 0), Site("resid_post", 2)]
    assert edited_names(edit) == ["resid_post.1", "attn_out.0"]


def test_what_leaves_no_graph_is_refused(analysis):
    alone = dataclasses.replace(analysis.prompts, patch=None)
    of_clean = analysis_of(analysis.model, analysis.suite, alone, reference="zero")
    with pytest.raises(ValueError, match="the prompts have no patch"):
        check_operations(of_clean, edit_of((f"{SITE}/3", "patch", {})))
    width = SIZES["hidden_size"]
    crossing = Suite({"crosscoder.0-1": crosscoder(width), "clt.0": cross_layer(0, width)}, {})
    other = analysis_of(analysis.model, crossing, analysis.prompts)
    with pytest.raises(ValueError, match="before all that it reads has run"):
        check_operations(other, edit_of(("resid_post.0/error", "zero", {})))
    late = edit_of(("clt.0/3", "zero", {"norm_below": ((Site("mlp_out", 2), 9.0),)}))
    message = "clt.0/3 is edited by the norm at mlp_out.2, and writes mlp_out.0 before: it would"
    with pytest.raises(ValueError, match=message):
        check_operations(other, late)
