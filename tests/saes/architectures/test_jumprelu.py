"""JumpReLU: straight-through gradients, the first thresholds, and the folded ones."""

import pytest
import torch

from saes.architectures.architecture import TrainingStart
from saes.architectures.jumprelu import TARGET_COEFFICIENT, begin, fold
from saes.training.step import DictionaryWeights
from tests.saes.architectures.losses import (
    D_TARGET,
    EPS,
    TOKENS,
    plain_loss,
    problem,
    step,
)


@pytest.mark.parametrize("target", [None, 2])
def test_jumprelu_by_hand(target):
    """The weights' gradients by autograd, the thresholds' by the straight-through formulas."""
    weights, x, y = problem("jumprelu")
    result = step(weights, x, y, "jumprelu", target=target)
    leaves = {n: w.clone().requires_grad_() for n, w in weights.named().items()}
    coefficient = 0.7 if target is None else TARGET_COEFFICIENT
    loss = plain_loss(DictionaryWeights.of(leaves), x, y, "jumprelu", coefficient, target)
    loss.backward()
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-10)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        torch.testing.assert_close(
            result.gradients.named()[name], leaves[name].grad, atol=1e-12, rtol=1e-10, msg=name
        )
    pre = x @ weights.W_enc.T + weights.b_enc
    theta = weights.own["log_threshold"].exp()
    f = pre * (pre > theta)
    error = y - f @ weights.W_dec - weights.b_dec
    d_f = -2 / (TOKENS * D_TARGET) * error @ weights.W_dec.T
    l0 = float((pre > theta).sum()) / TOKENS
    per_feature = coefficient / D_TARGET
    if target is not None:
        per_feature = 2 * coefficient * (l0 / target - 1) / target
    kernel = ((pre - theta).abs() < EPS / 2).double()
    d_theta = (-theta / EPS * kernel * d_f - kernel / EPS * per_feature / TOKENS).sum(0)
    expected = d_theta * theta
    assert expected.abs().max() > 0
    torch.testing.assert_close(
        result.gradients.own["log_threshold"], expected, atol=1e-12, rtol=1e-10
    )


@pytest.mark.parametrize(("k", "on_a_token"), [(1, 1), (3, 3), (7, None)])
def test_the_first_thresholds_leave_k_features_on_and_are_positive(k, on_a_token):
    weights, x, _ = problem("relu")
    begun = begin(TrainingStart(weights=weights, x=x, k=k, sparsity=0.5))
    theta = begun.parameters["log_threshold"].exp()
    assert (theta > 0).all()
    if on_a_token is not None:
        on = x @ weights.W_enc.T > theta
        assert float(on.sum()) / TOKENS == pytest.approx(on_a_token, abs=1 / TOKENS)
    assert begun.numbers["coefficient"] == 0.5


def test_the_finished_dictionary_has_the_thresholds_that_were_learnt():
    weights, _, _ = problem("jumprelu")
    folded = fold(weights)
    assert torch.equal(folded.threshold, weights.own["log_threshold"].exp())
    assert torch.equal(folded.bias, weights.b_enc)
    assert torch.equal(folded.gain, torch.ones_like(weights.b_enc))
