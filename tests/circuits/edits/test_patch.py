"""Values on patch prompts."""

from dataclasses import replace

import pytest
import torch

from circuits.edits.patch import patch_values
from circuits.graph import Node
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts

SITE = "resid_post.1"


def test_one_feature_goes_to_its_own_value_on_each_patch():
    analysis = analysis_of(shared_toy(), full_suite(), toy_prompts(3), batch_size=3)
    edit = Edit(operations=(Operation(node=Node(SITE, 3), do="patch"),))
    rows = torch.tensor([2, 0])
    with capture(analysis.model, [Site.parse(SITE)]) as seen, torch.no_grad():
        analysis.model(analysis.prompts.patch.tokens[rows])
    f = analysis.suite[SITE].encode(seen[Site.parse(SITE)]).dense()[..., 3]
    assert torch.equal(patch_values(analysis, edit, rows)(Node(SITE, 3)), f)


def test_prompts_without_a_patch_are_refused():
    prompts = replace(toy_prompts(2), patch=None)
    analysis = analysis_of(shared_toy(), full_suite(), prompts, reference="zero")
    edit = Edit(operations=(Operation(node=Node(SITE, 3), do="patch"),))
    with pytest.raises(ValueError, match="have no patch for a node to go to"):
        patch_values(analysis, edit)
