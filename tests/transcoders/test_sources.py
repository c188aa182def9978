"""What writes to the stream: totals over all paths, and rows that are made again."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.sites import Site
from tests.transcoders.test_replacement import OWN, SUITES, largest
from tests.transcoders.toys import (
    TOKENS,
    replaced,
    suite_of,
)
from transcoders.frozen.model import EMBED
from transcoders.sources import BIAS, ERROR, FEATURE


@pytest.fixture(params=SUITES, scope="module")
def any_suite(request):
    return replaced("qwen2", SUITES[request.param]())


def test_totals_are_sums_over_all_paths_of_edges(any_suite):
    """Of w(s -> t) = a_s * d t / d a_s, direct edges make total ones: features pass all on."""
    model, sources = any_suite, any_suite.sources
    direction = torch.randn(1, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    targets = model.last_token(direction)
    total = torch.zeros(len(sources)).double()
    inputs = model.inputs(targets)
    total[: len(inputs.weight)] = inputs.weight[:, 0]
    features = (sources.kind == FEATURE).nonzero().squeeze(-1)
    for group in model.grouped(features, 1):
        (t,) = group.tolist()
        weight = model.inputs(model.features(group)).weight[:, 0]
        total[: len(weight)] += weight * (total[t] / sources.activation[t])
    found = model.totals(targets)
    moved = found.slope * sources.activation
    token = (found.gradient[EMBED] * model.recorded.embed).sum(-1)
    moved[: len(TOKENS)] = token
    for layer, written in enumerate(sources.layers):
        of = (sources.kind == ERROR) & (sources.layer == layer)
        moved[of] = (found.gradient[Site("mlp_out", layer)] * written.error).sum(-1)
    assert largest(moved - torch.where(sources.kind == BIAS, 0.0, total)) < OWN * largest(total)


def test_rows_that_are_not_kept_are_made_again(any_suite):
    model = any_suite
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    group = next(model.grouped(features))
    kept = model.inputs(model.features(group)).weight
    anew = replace(model, written=replace(model.written, kept=0))
    assert torch.equal(anew.inputs(anew.features(group)).weight, kept)


def test_a_layer_without_a_transcoder_is_all_error():
    model = replaced("qwen3", suite_of([1]))
    for layer, written in enumerate(model.sources.layers):
        whole = model.recorded.mlp_out[layer]
        assert torch.equal(written.error, whole) == (layer != 1)
