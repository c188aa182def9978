"""What sets share, and what they would by chance."""

from itertools import combinations

import pytest
import torch

from saes.scope.overlap import agreement, dealt_anew, halves, overlaps, tree_of
from tests.saes.scope.test_coverage import drawn, incidence


def test_overlap_is_a_share_of_the_row():
    a, b, none = (torch.zeros(2, 6, dtype=torch.bool) for _ in range(3))
    a[0, :3], a[1, 2:4], b[1, 3:6] = True, True, True
    found = overlaps([incidence(a), incidence(b), incidence(none)])
    assert found[:2].tolist() == [[1.0, 0.25, 0.0], [pytest.approx(1 / 3), 1.0, 0.0]]
    assert found[2].isnan().all()


def test_samples_dealt_anew_average_over_every_deal():
    a, b = drawn(2, 10, 0.4, 1), drawn(3, 10, 0.4, 2)
    both = torch.cat([a, b])
    exact = []
    for some in combinations(range(5), 2):
        one, other = both[list(some)].any(0), both[[i for i in range(5) if i not in some]].any(0)
        shared = (one & other).sum()
        exact.append(torch.stack([shared / one.sum(), shared / other.sum()]))
    found = dealt_anew(incidence(a), incidence(b), draws=4000, seed=0)
    torch.testing.assert_close(
        found.mean(0).float(), torch.stack(exact).mean(0), atol=0.01, rtol=0.0
    )


def test_sets_of_one_kind_share_what_samples_dealt_anew_do():
    has = drawn(80, 400, 0.02, 5)
    same = incidence(has[:40]), incidence(has[40:])
    found = overlaps(same)[0, 1]
    low, high = dealt_anew(*same, draws=200).quantile(torch.tensor([0.0, 1.0]).double(), 0)[:, 0]
    assert low <= found <= high
    # Of two kinds they share less than if they were of one.
    other = has.clone()
    other[:40, :200], other[40:, 200:] = False, False
    apart = incidence(other[:40]), incidence(other[40:])
    assert overlaps(apart)[0, 1] == 0
    assert dealt_anew(*apart, draws=50)[:, 0].min() > 0.2


def test_halves_of_one_sample_are_none():
    assert halves(incidence(drawn(1, 5, 1.0))).isnan().all()
    both = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert halves(incidence(both), draws=3).tolist() == [0.75] * 3


def test_the_tree_joins_what_shares_most():
    overlap = torch.eye(4).double()
    overlap[0, 2], overlap[2, 0] = 0.9, 0.7
    overlap[1, 3], overlap[3, 1] = 0.5, 0.5
    found = tree_of(overlap)
    assert [sorted(pair[:2]) for pair in found.merges] == [[0, 2], [1, 3], [4, 5]]
    assert [pair[2] for pair in found.merges] == pytest.approx([0.2, 0.5, 1.0])
    assert abs(found.order.index(0) - found.order.index(2)) == 1
    assert tree_of(torch.ones(1, 1).double()).order == [0]
    nothing = tree_of(torch.full((2, 2), torch.nan).double())
    assert nothing.merges[0][2] == 1.0


def test_matrices_of_one_order_agree():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(6, 6, generator=generator).double()
    same, other = agreement(a, a**3), agreement(a, torch.rand(6, 6, generator=generator).double())
    assert (same.spearman, same.p < 0.01) == (pytest.approx(1.0), True)
    assert abs(other.spearman) < 0.6
    assert other.p > 0.05
    assert agreement(a[:3, :3], a[:3, :3]) is None
    assert agreement(torch.full((6, 6), torch.nan).double(), a) is None
    assert agreement(torch.ones(6, 6).double(), a).spearman == 0.0
