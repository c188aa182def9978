"""The linear map of a model at one prompt: its adjoint is autograd's with all else constant."""

import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.relevance import relevance_rules
from hooked_qwen.sites import Site
from tests.transcoders.test_replacement import MODELS, OWN, largest
from tests.transcoders.toys import (
    FAMILIES,
    TOKENS,
    replaced,
    suite_of,
    toy_of,
)
from transcoders.frozen.model import EMBED
from transcoders.replacement import replace_mlps


@pytest.fixture(params=FAMILIES, scope="module")
def any_family(request):
    return replaced(request.param, suite_of([0, 1, 2], skips=[1]))


def test_the_adjoint_is_autograd_through_the_frozen_maps(any_family):
    model = any_family
    n, d = len(TOKENS), 24
    generator = torch.Generator().manual_seed(4)
    sites = [EMBED, *(Site("mlp_out", layer) for layer in range(len(model.frozen.layers)))]

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    vectors, position = draw(3, d), torch.tensor([2, 5, 3])
    for site in (
        Site("mlp_in", 2),
        Site("mlp_in", 0),
        Site("resid_post", 2),
        Site("resid_post", 1),
    ):
        writes = {s: draw(n, 1, d).requires_grad_() for s in sites}
        pushed = model.frozen.push(writes)
        read = (
            pushed.resid_post[site.layer]
            if site.kind == "resid_post"
            else pushed.mlp_in[site.layer]
        )
        pulled = dict(model.frozen.pull(site, vectors, position))
        for i, (v, at) in enumerate(zip(vectors, position.tolist(), strict=True)):
            grads = torch.autograd.grad(
                (read[at, 0] * v).sum(), list(writes.values()), retain_graph=True, allow_unused=True
            )
            for s, grad in zip(writes, grads, strict=True):
                expected = torch.zeros(n, d).double() if grad is None else grad[:, 0]
                found = torch.zeros_like(expected)
                if s in pulled:
                    found[: len(pulled[s])] = pulled[s][:, i]
                assert largest(found - expected) < OWN


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_it_is_the_models_own_gradient_with_norms_and_patterns_constant(family):
    hooked = toy_of(family)
    model = replace_mlps(hooked, suite_of([2]), TOKENS)
    layer, at = 2, 4
    sites = [EMBED, *(Site("mlp_out", below) for below in range(layer))]
    leaves = {site: (torch.zeros(1, len(TOKENS), 24).double()).requires_grad_() for site in sites}
    edits = {site: lambda x, leaf=leaf: x.detach() + leaf for site, leaf in leaves.items()}
    source = model.sources.dictionary == 0
    chosen = (source & (model.sources.position == at)).nonzero().squeeze(-1)
    targets = model.features(chosen)
    reads = {Site("mlp_in", layer)}
    with relevance_rules(hooked), intervene(hooked, edits), capture(hooked, reads) as seen:
        hooked(TOKENS[None])
    pulled = dict(model.frozen.pull(targets.site, targets.vectors, targets.position))
    for i in range(len(chosen)):
        read = (seen[Site("mlp_in", layer)][0, at] * targets.vectors[i]).sum()
        grads = torch.autograd.grad(read, list(leaves.values()), retain_graph=True)
        for site, grad in zip(leaves, grads, strict=True):
            found = torch.zeros_like(grad[0])
            found[: len(pulled[site])] = pulled[site][:, i]
            assert largest(found - grad[0]) < MODELS * max(largest(grad), 1e-3)
            assert not grad[0, at + 1 :].any()


def test_the_gradient_under_the_freeze_does_not_depend_on_other_tokens(any_family):
    model = any_family
    n, d = len(TOKENS), 24
    generator = torch.Generator().manual_seed(6)
    weights = torch.randn(d, generator=generator, dtype=torch.float64)
    grads = []
    for scale in (0.0, 30.0):
        embed = torch.randn(n, 1, d, generator=generator, dtype=torch.float64) * scale
        embed.requires_grad_()
        read = model.frozen.push({EMBED: embed}).mlp_in[2][-1, 0] @ weights
        grads.append(torch.autograd.grad(read, embed)[0])
    assert largest(grads[0]) > 1e-3
    assert largest(grads[0] - grads[1]) < OWN * largest(grads[0])
