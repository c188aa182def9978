"""How sources change on the way to their reference, and what that writes."""

from dataclasses import replace

import pytest
import torch

from circuits.discovery.node_changes import changes_to
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.graph import Node
from hooked_qwen.sites import Site
from tests.circuits.discovery.replaced import analysis, graph_of


def test_of_a_pair_effects_are_of_moving_to_the_patch(one):
    to_zero = graph_of(one)
    to_patch = graph_of(one, reference="patch")
    assert one.patch is not None
    there = graph_of(replace(one, clean=one.patch, patch=None))
    for node in to_zero:
        if node.kind != "feature":
            continue
        data, activation = to_patch.nodes[node], to_zero.nodes[node]["activation"]
        moved = (there.nodes[node]["activation"] if node in there else 0.0) - activation
        slope = -to_zero.nodes[node]["effect"] / activation
        assert data["effect"] == pytest.approx(moved * slope, rel=1e-9, abs=1e-12)
    # What is the same in both does not move: all before the token that differs.
    assert to_patch.nodes[Node("embed", "token", 0)]["effect"] == 0
    assert to_patch.nodes[Node("embed", "token", 1)]["effect"] != 0
    (output,) = [n for n in to_patch if n.kind == "logit"]
    meta = to_patch.graph
    assert to_patch.nodes[output]["exact"] == pytest.approx(
        meta["patch_metric"] - meta["clean_metric"], rel=1e-6
    )


@pytest.mark.parametrize("patched", [False, True], ids=["zero", "patch"])
def test_what_all_sources_write_together_is_the_change_of_their_sites(one, patched):
    """A feature that is off in the clean prompt and on in the patch is no source."""
    prompts = ReplacedPrompts(analysis(one))
    (opened,) = prompts
    model = opened.model
    there = prompts.replaced(one.patch, 0) if patched else None
    changes = changes_to(model, there)
    every = torch.arange(len(model.sources))
    nothing, written = every[:0], changes.written([every, every[:0]])
    for site, change in written.items():
        assert not change[0].any()
        assert not change[2].any()
        if site == Site("embed"):
            to = there.recorded.embed if patched else 0.0
            torch.testing.assert_close(change[1], to - model.recorded.embed)
    assert len(written) == 1 + len(model.sources.layers)
    if not patched:
        for layer, sources in enumerate(model.sources.layers):
            gone = model.recorded.mlp_out[layer] - sources.bias
            gone = gone + model.frozen.layers[layer].constant()
            torch.testing.assert_close(written[Site("mlp_out", layer)][1], -gone)
    assert changes.written([nothing]) == {}
