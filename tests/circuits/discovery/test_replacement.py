"""Replacement graphs on toys: edges against interventions on the model, and what is refused."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import torch

import circuits
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import Site
from tests.circuits.discovery.replaced import MODELS, SITES, analysis, graph_of, speaking
from tests.toys import (
    shared_toy,
    toy_suite,
)


@contextmanager
def frozen(model, tokens):
    """The model itself with patterns, norms and MLP outputs held at their values for `tokens`."""
    kept, handles = {}, ExitStack()

    def scale(_norm, args, output):
        kept.setdefault(_norm, output.detach() / args[0].detach())
        return args[0] * kept[_norm]

    def pattern(hook, _args, output):
        return kept.setdefault(hook, output.detach())

    def constant(mlp, _args, output):
        return kept.setdefault(mlp, output.detach())

    with handles:
        for block in model.blocks:
            for norm in (block.ln1, block.ln2):
                hook = norm.original_component.register_forward_hook(scale)
                handles.callback(hook.remove)
            handles.callback(block.attn.hook_pattern.register_forward_hook(pattern).remove)
            hook = block.mlp.original_component.register_forward_hook(constant)
            handles.callback(hook.remove)
        hook = model.ln_final.original_component.register_forward_hook(scale)
        handles.callback(hook.remove)
        model(tokens)
        yield


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_doubling_a_feature_in_the_frozen_model_moves_what_reads_it_by_its_edges(one, family):
    """An intervention on the model itself, in float32."""
    model, suite = shared_toy(family, torch.float32), toy_suite(*SITES, dtype=torch.float32)
    graph = graph_of(one, suite, model)
    tokens, reads = one.clean.tokens, [Site("mlp_in", layer) for layer in range(3)]
    features = [n for n in graph if n.kind == "feature"]
    with torch.no_grad(), frozen(model, tokens):
        with capture(model, reads) as seen:
            model(tokens)
            before = dict(seen)
        for source in features[::7]:
            dictionary = suite[source.site]
            row = dictionary.W_dec[source.feature] * graph.nodes[source]["activation"]

            def double(x, row=row, at=source.position):
                x = x.clone()
                x[0, at] += row
                return x

            with intervene(model, {Site.parse(source.site): double}), capture(model, reads) as seen:
                model(tokens)
                after = dict(seen)
            for target in features:
                of, at = suite[target.site], target.position
                ends = (x[of.source][0, at] @ of.W_enc[target.feature] for x in (before, after))
                low, high = map(float, ends)
                edge = graph.edges.get((source, target), {"weight": 0.0})["weight"]
                assert edge == pytest.approx(high - low, abs=MODELS * max(abs(low), abs(high), 1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"reference": "mean"}, "moving a node to the patch or to zero, not to the mean"),
        ({"estimator": "exact"}, "estimator is 'exact', which is of sparse feature graphs"),
        ({"faithfulness": 0.9}, "faithfulness is 0.9, which is of sparse feature graphs"),
        ({"method": "sparse-feature"}, "all nodes are kept of a replacement graph only"),
        ({"targets": 0}, "targets is 0: expected at least 1"),
        ({"metric": "kl"}, "the metric has no gradient at this prompt"),
        ({"reference": "patch"}, "the prompts have no patch to move nodes to"),
    ],
)
def test_what_cannot_be_done_is_one_line(one, config, message):
    with pytest.raises(ValueError, match=message) as error:
        graph_of(replace(one, patch=None), **config)
    assert "\n" not in str(error.value)


def test_in_a_notebook_too_its_features_are_ablated(one):
    found = circuits.discover(analysis(one, model=speaking()))
    left = circuits.ablate(found, top=1)
    (output,) = [data for node, data in left.graph.nodes(data=True) if node.kind == "logit"]
    assert left.graph.graph["method"] == "replacement"
    assert output["activation"] == pytest.approx(left.record["after"], abs=MODELS)
