"""Edits to the patch's values; and edits and restricted circuits on another device."""

import torch

from circuits.ablation.edge_circuits import EdgeCircuit, possible_edges
from circuits.ablation.faithfulness import metric_with
from circuits.ablation.restricted_run import restricted_metric
from circuits.edits.patch import patch_values
from circuits.graph import Node
from hooked_qwen.load import hook
from saes.edit import Condition, Edit, Operation
from saes.nodes import NodeSet
from tests.toys import analysis_of, full_suite, shared_toy, toy_hf, toy_prompts

SITE = "resid_post.1"


def test_all_nodes_at_the_patch_is_ablation_to_the_patch():
    analysis = analysis_of(shared_toy(), full_suite(), toy_prompts(3), batch_size=3)
    suite, kept = analysis.suite, Node(SITE, 3)
    operations = [
        Operation(node=Node(name, "*"), do="patch", besides=(kept,) if name == SITE else ())
        for name in suite
    ]
    operations += [Operation(node=Node(str(s), "error"), do="patch") for s in suite.writes]
    edit = Edit(operations=tuple(operations))
    clean = analysis.prompts.clean
    with edit.applied(analysis, patch=patch_values(analysis, edit)), torch.no_grad():
        logits = analysis.model(clean.tokens, attention_mask=clean.mask.long())[:, -1]
    found = analysis.metric(logits, torch.arange(3))
    expected = metric_with(analysis, NodeSet.of([kept]), "patch")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def outcome(device):
    model = hook(toy_hf(dtype=torch.float32), name="toy").to(device)
    prompts = toy_prompts(2, length=4)
    analysis = analysis_of(model, full_suite(dtype=torch.float32), prompts, batch_size=2)
    when = Condition(node=Node("attn_out.0", 2), above=-1.0)
    edit = Edit(
        operations=(
            Operation(node=Node("mlp_out.0", "*"), do="scale", value=0.5,
                      besides=(Node("mlp_out.0", 3, 1),)),
            Operation(node=Node("mlp_out.1", 4), do="mean", positions="prompt"),
            Operation(node=Node(SITE, 3), do="add", value=2.0, positions=(1, 2), when=when),
            Operation(node=Node(SITE, "error"), do="mean", besides=(Node(SITE, "error", 2),)),
        ),
        means={Node("mlp_out.1", 4): 1.5, Node(SITE, "error"): torch.full((24,), 0.1)},
    )  # fmt: skip
    tokens = prompts.clean.tokens.to(device)
    with edit.applied(analysis), torch.no_grad():
        logits = model.original_model(tokens).logits
    nodes = [Node(name, i, p) for name in analysis.suite for i in (1,) for p in (1, 3)]
    nodes += [Node("resid_post.0", "error", 1), Node("embed", "token", 1)]
    every = possible_edges(analysis.suite, analysis.metric, nodes)
    circuit = EdgeCircuit(tuple(nodes), frozenset(every[::2]))
    found = [restricted_metric(analysis, circuit, to) for to in ("patch", "mean")]
    return [logits.cpu(), *(x.cpu() for x in found)]


def test_edits_and_restricted_circuits_are_the_same_on_another_device(other):
    with other.complaining():
        there = outcome(other.name)
    other.agrees([t.tolist() for t in there], [t.tolist() for t in outcome("cpu")])
