"""Products with the features that are on are the dense ones, nested prefixes included."""

import pytest
import torch

from saes.training.selection import Pairs
from saes.training.sparse_products import SHORT, Bags, ByFeature, any_by_feature, sums_by_feature
from saes.training.step import ScratchMemory
from tests.saes.published import draw

FEATURES, D = 7, 3
# Tokens of two, none, three and one feature; feature 6 of two tokens, feature 5 of none.
ON = [(0, 6), (0, 1), (2, 4), (2, 0), (2, 6), (3, 2)]
PREFIXES = (2, 5, 7)


def pairs():
    tokens, features = (torch.tensor(column) for column in zip(*ON, strict=True))
    return Pairs(features, draw(len(ON), seed=0), tokens.bincount(minlength=4))


def dense(pairs):
    f = torch.zeros(4, FEATURES)
    f[pairs.tokens, pairs.features] = pairs.values
    return f


def test_each_bag_is_decoded_to_what_its_prefix_adds():
    rows, f = draw(FEATURES, D, seed=1), dense(pairs())
    found = Bags.of(pairs(), PREFIXES).decode(rows).view(4, len(PREFIXES), D)
    starts = (0, *PREFIXES[:-1])
    for n, (start, end) in enumerate(zip(starts, PREFIXES, strict=True)):
        torch.testing.assert_close(found[:, n], f[:, start:end] @ rows[start:end])
    whole = Bags.of(pairs(), (FEATURES,)).decode(rows)
    torch.testing.assert_close(whole, f @ rows)


@pytest.mark.parametrize("prefixes", [(FEATURES,), PREFIXES], ids=len)
def test_products_of_rows_are_the_gradient_of_decoding(prefixes):
    bags = Bags.of(pairs(), prefixes)
    rows, of_bags = draw(FEATURES, D, seed=1), draw(4 * len(prefixes), D, seed=2)
    found = bags.row_products(of_bags, rows)
    torch.testing.assert_close(found, (of_bags[bags.ids] * rows[bags.features]).sum(-1))
    assert torch.equal(bags.tokens, bags.ids // len(prefixes))


@pytest.mark.parametrize("width", [FEATURES, SHORT + 1])
def test_a_product_by_feature_sums_the_rows_of_its_pairs(width):
    one, memory, rows = pairs(), ScratchMemory(), draw(4, D, seed=3)
    found = ByFeature.of(one.features, width).product(one.values, one.tokens, rows, "W", memory)
    torch.testing.assert_close(found[:FEATURES], dense(one).T @ rows)
    assert not found[FEATURES:].any()


def test_sums_by_feature():
    one = pairs()
    torch.testing.assert_close(
        sums_by_feature(one.values, one.features, FEATURES), dense(one).sum(0)
    )
    on = one.values > 0
    assert torch.equal(any_by_feature(on, one.features, FEATURES), (dense(one) > 0).any(0))
