"""A run decomposed: what its features write and its errors add up to what the model computed."""

import pytest
import torch

from circuits.attribution.decomposed_run import (
    decompose,
    norm_limits,
    outliers,
    run_plain,
    site_values,
    slopes,
)
from hooked_qwen.sites import Site
from hooked_qwen.stream import OUTLIER_FACTOR
from tests.saes.formulas import suite_of
from tests.toys import full_suite, shared_toy, toy_prompts

PROMPTS = toy_prompts(n=3, at=2)
RELU = ("mlp_out.0", "mlp_in.1-mlp_out.1", "resid_post.1")


@pytest.fixture(scope="module")
def runs():
    model, suite = shared_toy(), full_suite()
    return suite, *(run_plain(model, suite, b) for b in (PROMPTS.clean, PROMPTS.patch))


def test_features_and_errors_add_up_to_each_site_s_tensor(runs):
    suite, clean, patch = runs
    both = decompose(suite, clean, patch)
    for side, run in ((both.clean, clean), (both.patch, patch)):
        for site, error in side.errors.items():
            total = suite[site].decode(side.features[str(site)]) + error
            torch.testing.assert_close(total, run.values[site], atol=1e-12, rtol=0)
        assert set(side.errors) == set(suite.writes)


def test_columns_that_are_alike_in_both_runs_are_decomposed_as_alone(runs):
    """The prompts are the same up to their third token."""
    suite, clean, patch = runs
    together, alone = decompose(suite, clean, patch), decompose(suite, patch)
    for name, features in together.patch.features.items():
        torch.testing.assert_close(features.dense(), alone.clean.features[name].dense())
    assert alone.patch is None


def test_without_a_patch_as_reference_slopes_are_one_where_features_are_on(runs):
    suite, clean, patch = runs
    for both in (decompose(suite, clean), decompose(suite, clean, patch, reference="mean")):
        for name, slope in both.slopes.items():
            f = both.clean.features[name].dense()
            assert torch.equal(slope.dense(), (f != 0).to(f))


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_slopes_are_changes_over_changes_of_pre_activations(kind):
    suite, generator = suite_of(kind, *RELU), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 30, 24, generator=generator, dtype=torch.float64)
    y[0, 0] = x[0, 0]
    for dictionary in suite.values():
        move = dictionary.encode_move(x, y)
        found = slopes(dictionary, move, y - x).dense()
        before, after = move.before.dense(), move.after.dense()
        moved = (y - x) @ dictionary.W_enc.T
        change, inside = after - before, (found > 0) & (found < 3)
        torch.testing.assert_close((found * moved)[inside], change[inside])
        # A feature may go off by its rank though its pre-activation rises.
        assert (change * moved <= 0)[found == 0].all()
        assert found.min() >= 0
        assert found.max() <= 3
        assert not found[(before == 0) & (after == 0)].any()
        # Where nothing is moved, a feature that is on responds one to one.
        assert torch.equal(found[0, 0], (before[0, 0] != 0).double())


def test_outliers_of_a_dictionary_are_those_of_any_site_it_reads_or_writes():
    suite, mask = full_suite(), torch.ones(1, 12, dtype=torch.bool)
    x = torch.ones(1, 12, 24)
    values = {site: x.clone() for site in {*suite.reads, *suite.writes}}
    values[Site("mlp_in", 1)][0, 0] *= 100
    values[Site("mlp_out", 2)][0, 3] *= 100
    found = outliers(suite, values, mask)
    at = {name: where.nonzero()[:, 1].tolist() for name, where in found.items() if where.any()}
    assert at == {"mlp_out.1": [0], "mlp_out.2": [3]}


def test_norm_limits_are_ten_medians_of_all_tokens_however_they_are_batched():
    model, suite = shared_toy(), full_suite()
    found = norm_limits(model, suite, PROMPTS.clean, batch_size=2)
    values, _, _ = site_values(model, suite, PROMPTS.clean)
    assert found.keys() == {*suite.reads, *suite.writes}
    for site, limit in found.items():
        median = values[site].float().norm(dim=-1).flatten().median()
        assert limit == pytest.approx(OUTLIER_FACTOR * float(median), rel=1e-6)
