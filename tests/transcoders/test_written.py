"""What sources write is the same whether rows are kept or made for each sweep."""

import pytest
import torch

from hooked_qwen.sites import Site
from tests.transcoders.toys import TOKENS, cross_layer_suite, replaced, suite_of
from transcoders.written import WrittenRows

SUITES = {
    "per layer": lambda: suite_of([0, 1, 2]),
    "partly": lambda: suite_of([1]),
    "cross-layer": cross_layer_suite,
}


@pytest.fixture(scope="module", params=SUITES)
def model(request):
    return replaced("qwen3", SUITES[request.param]())


def rows_of(model, kept):
    return WrittenRows(model.sources, model.dictionaries, kept)


@pytest.mark.parametrize("kept", [0, 2**30], ids=["made", "kept"])
def test_rows_are_what_each_source_writes_at_the_first_tokens(model, kept, small_chunks):
    small_chunks("transcoders.sources.ROWS_AT_ONCE", 1)
    upto = 4
    for layer, written in enumerate(model.sources.layers):
        expected = written.rows(Site("mlp_out", layer), model.dictionaries, 0, upto)
        parts = list(rows_of(model, kept).rows(layer, upto))
        assert torch.equal(torch.cat([rows for *_, rows in parts]), expected)
        starts = [first for first, *_ in parts]
        assert starts == [0, *(last for _, last, _ in parts)][:-1]
        assert parts[-1][1] == upto


@pytest.mark.parametrize("kept", [0, 2**30], ids=["made", "kept"])
def test_products_are_those_of_each_row_with_the_gradient_at_its_token(model, kept):
    generator = torch.Generator().manual_seed(0)
    for layer, written in enumerate(model.sources.layers):
        g = torch.randn(len(TOKENS), 3, 24, generator=generator, dtype=torch.float64)
        weight = torch.zeros(len(model.sources), 3, dtype=torch.float64)
        rows_of(model, kept).add_products(layer, g, weight)
        rows = written.rows(Site("mlp_out", layer), model.dictionaries)
        expected = torch.zeros_like(weight)
        for source, position, row in zip(written.source, written.position, rows, strict=True):
            expected[source] += g[position] @ row
        torch.testing.assert_close(weight, expected)


def test_what_all_rows_write_together_is_what_leaves_the_mlps(model):
    for layer, (written, out) in enumerate(
        zip(model.sources.layers, model.recorded.mlp_out, strict=True)
    ):
        ((_, _, rows),) = rows_of(model, 2**30).rows(layer, len(TOKENS))
        total = torch.zeros_like(out).index_add_(0, written.position, rows)
        frozen = model.frozen.layers[layer]
        skip = 0 if frozen.skip is None else model.recorded.mlp_in[layer] @ frozen.skip.T
        torch.testing.assert_close(total, out + frozen.constant() - skip)
