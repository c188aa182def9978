"""Means of features and errors over prompts."""

import pytest
import torch

from circuits.attribution.means import mean_over
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def case(analysis):
    return analysis.model, analysis.suite, analysis.prompts


def test_means_leave_padding_out_and_do_not_depend_on_batches(analysis, case):
    (model, suite, prompts), means = case, analysis.means
    again = mean_over(model, suite, prompts.patch, by_position=True, batch_size=5)
    for name in suite:
        found, expected = again.f[name].dense(), means.f[name].dense()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    total = mean_over(model, suite, prompts.patch, by_position=False, batch_size=5)
    for name in suite:
        expected = means.f[name].dense().mean(0, keepdim=True)
        torch.testing.assert_close(total.f[name].dense(), expected, atol=1e-6, rtol=0)
    for site in suite.writes:
        expected = means.error[site].mean(0, keepdim=True)
        torch.testing.assert_close(total.error[site], expected, atol=1e-6, rtol=0)
