"""Metrics against their formulas."""

import pytest
import torch

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.effects import gradients_along_inputs
from circuits.discovery.config import DiscoverConfig
from circuits.metrics.metric import (
    divergence,
    log_probability,
    logit_difference,
    metric_at,
    probability_difference,
    readout,
)
from hooked_qwen.forward import unembed
from tests.toys import analysis_of, full_suite, shared_toy, toy, toy_prompts

ROWS = torch.tensor([2, 0, 2])
ANSWERS, WRONGS = ((1,), (2, 3), (4, 5, 6)), ((7,), (8,), (9, 0))


@pytest.fixture
def logits():
    return torch.randn(3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_logit_difference_is_of_means(logits):
    found = logit_difference(ANSWERS, WRONGS)(logits, ROWS)
    for value, row, prompt in zip(found, logits, ROWS.tolist(), strict=True):
        expected = row[list(ANSWERS[prompt])].mean() - row[list(WRONGS[prompt])].mean()
        assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_without_a_wrong_answer_the_whole_vocabulary_is_one(logits):
    found = logit_difference(ANSWERS, ((), (8,), ()))(logits, torch.tensor([0, 1, 2]))
    assert float(found[0]) == pytest.approx(float(logits[0, 1] - logits[0].mean()))
    assert float(found[1]) == pytest.approx(float(logits[1, [2, 3]].mean() - logits[1, 8]))


def test_answers_count_by_their_weights(logits):
    metric = logit_difference(((1, 2),), ((),), weights=((0.75, 0.25),))
    expected = 0.75 * logits[0, 1] + 0.25 * logits[0, 2] - logits[0].mean()
    assert float(metric(logits[:1], torch.tensor([0]))) == pytest.approx(float(expected))


@pytest.mark.parametrize("wrongs", [WRONGS, ((), (8,), ())], ids=["opposed", "unopposed"])
@pytest.mark.parametrize("watched", [False, True], ids=["alone", "watched"])
def test_from_the_stream_only_named_tokens_are_unembedded(wrongs, watched):
    model = toy()
    model.unembed.original_component.bias.normal_()
    last = torch.randn(3, 1, model.cfg.d_model, dtype=torch.float64)
    metric = logit_difference(ANSWERS, wrongs)
    expected = metric(unembed(model, last)[:, -1], ROWS)
    seen = []
    handle = model.unembed.register_forward_hook(lambda _, args, out: seen.append(out.dim()))
    if not watched:
        handle.remove()
    found = metric_at(model, last, metric, ROWS)
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert seen == [3] * watched


def test_a_log_probability_is_of_all_right_answers_together(logits):
    found = log_probability(ANSWERS)(logits, ROWS)
    for value, row, prompt in zip(found, logits.softmax(-1), ROWS.tolist(), strict=True):
        assert float(value) == pytest.approx(float(row[list(ANSWERS[prompt])].sum().log()))


def test_a_probability_difference_is_of_all_answers_right_and_wrong(logits):
    wrongs = [[1], [2, 3], []]
    found = probability_difference(ANSWERS, wrongs)(logits, ROWS)
    for value, row, prompt in zip(found, logits.softmax(-1), ROWS.tolist(), strict=True):
        expected = row[list(ANSWERS[prompt])].sum() - row[wrongs[prompt]].sum()
        assert float(value) == pytest.approx(float(expected))


def test_a_divergence_is_zero_and_flat_where_nothing_changed(logits):
    metric = divergence(logits)
    here = logits[ROWS].requires_grad_()
    assert float(metric(here, ROWS).detach().abs().max()) < 1e-12
    assert float(torch.autograd.grad(metric(here, ROWS).sum(), here)[0].abs().max()) < 1e-12
    p, q = logits[0].softmax(-1), logits[1].softmax(-1)
    found = metric(logits[1:2], torch.tensor([0]))
    assert float(found) == pytest.approx(float((p * (p / q).log()).sum()))


def test_a_readout_is_linear(logits):
    weight = torch.arange(11.0, dtype=torch.float64)
    assert torch.equal(readout(weight, 2.0)(logits, ROWS), logits @ weight + 2)


@pytest.fixture(scope="module")
def case():
    return shared_toy(dtype=torch.float32), full_suite(dtype=torch.float32), toy_prompts(n=4)


@pytest.mark.parametrize("name", ["logit-difference", "log-probability", "kl"])
def test_effects_of_the_embeddings_along_their_path_add_up_to_the_whole_change(case, name):
    """Completeness of `ig-inputs` where its path is straight, to quadrature error."""
    model, suite, prompts = case
    analysis = analysis_of(model, suite, prompts, metric=name, steps=200)
    (state,), metric = analysis.states, analysis.metric
    gradients = gradients_along_inputs(analysis, state)
    found = float((gradients[EMBED] * state.embed_change).sum())
    change = metric(state.patch_logits, state.rows) - metric(state.logits, state.rows)
    assert found == pytest.approx(float(change.sum()), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "kl", "estimator": "patching"}, "kl has no gradient at the clean run"),
        ({"metric": "kl", "estimator": "relp"}, "kl has no gradient at the clean run"),
        ({"estimator": "ig-inputs", "reference": "zero"}, "ig-inputs takes the embeddings"),
        ({"threshold": 0.1, "influence": 0.9}, "prune by one of threshold and influence"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DiscoverConfig(**changes)
