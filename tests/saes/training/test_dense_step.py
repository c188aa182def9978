"""The losses that learn their sparsity equal their formulas, token by token."""

import math

import pytest
import torch

from saes.architectures.architecture import StepOptions
from saes.architectures.jumprelu import TARGET_COEFFICIENT
from saes.architectures.table import architecture as architecture_called
from saes.training.config import TrainConfig
from saes.training.step import Dead, DictionaryWeights, ScratchMemory, number_like

FEATURES, TOKENS, D_SOURCE, D_TARGET = 7, 11, 4, 5
EPS = 0.4


def problem(architecture, *, skip=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own = {"jumprelu": ["log_threshold"], "gated": ["r_mag", "b_mag"]}.get(architecture, [])
    weights = DictionaryWeights(
        W_enc=draw(FEATURES, D_SOURCE),
        b_enc=draw(FEATURES),
        W_dec=draw(FEATURES, D_TARGET),
        b_dec=draw(D_TARGET),
        W_skip=draw(D_TARGET, D_SOURCE) if skip else None,
        own={name: draw(FEATURES) for name in own},
    )
    return weights, draw(TOKENS, D_SOURCE), draw(TOKENS, D_TARGET)


def step(weights, x, y, architecture, coefficient=0.7, target=None):
    numbers = {"coefficient": coefficient, "bandwidth": EPS}
    options = StepOptions(
        k=target,
        prefixes=(FEATURES,),
        config=TrainConfig(width=FEATURES),
        numbers={name: number_like(value, x) for name, value in numbers.items()},
        dead=Dead(features=torch.empty(0, dtype=torch.long)),
        memory=ScratchMemory(),
    )
    return architecture_called(architecture).step(weights, x, y, options)


def plain_loss(w, x, y, architecture, coefficient, target=None):
    """One token at a time, as the papers write it."""
    total, counted = 0.0, 0.0
    for token, wanted in zip(x, y, strict=True):
        pre = w.W_enc @ token + w.b_enc
        skip = 0 if w.W_skip is None else w.W_skip @ token
        if architecture == "relu":
            f, price = pre.clamp(min=0), pre.clamp(min=0)
        elif architecture == "gated":
            magnitude = torch.exp(w.own["r_mag"]) * (w.W_enc @ token) + w.own["b_mag"]
            f, price = (pre > 0) * magnitude.clamp(min=0), pre.clamp(min=0)
            gate_only = (
                price @ w.W_dec.detach()
                + w.b_dec.detach()
                + (0 if w.W_skip is None else w.W_skip.detach() @ token)
            )
            total = total + (wanted - gate_only).square().sum() / D_TARGET
        else:
            f, price = pre * (pre > torch.exp(w.own["log_threshold"])), None
            counted = counted + (f != 0).double().sum()
        total = total + (wanted - f @ w.W_dec - w.b_dec - skip).square().sum() / D_TARGET
        if price is not None:
            total = total + coefficient / D_TARGET * (price * w.W_dec.norm(dim=1)).sum()
    if architecture == "jumprelu":
        l0 = counted / TOKENS
        cost = (
            coefficient / D_TARGET * l0 if target is None else coefficient * (l0 / target - 1) ** 2
        )
        return total / TOKENS + cost
    return total / TOKENS


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize("architecture", ["relu", "gated"])
def test_gradients_equal_autograd_of_the_plain_formula(architecture, skip):
    weights, x, y = problem(architecture, skip=skip)
    result = step(weights, x, y, architecture)
    leaves = {n: w.clone().requires_grad_() for n, w in weights.named().items()}
    loss = plain_loss(DictionaryWeights.of(leaves), x, y, architecture, 0.7)
    loss.backward()
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-10)
    for name, gradient in result.gradients.named().items():
        torch.testing.assert_close(gradient, leaves[name].grad, atol=1e-12, rtol=1e-10, msg=name)


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


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu"])
def test_what_the_log_shows(architecture):
    weights, x, y = problem(architecture)
    result = step(weights, x, y, architecture)
    pre = x @ weights.W_enc.T + weights.b_enc
    on = pre > (weights.own["log_threshold"].exp() if architecture == "jumprelu" else 0)
    if architecture == "gated":
        on &= (pre - weights.b_enc) * weights.own["r_mag"].exp() + weights.own["b_mag"] > 0
    assert result.l0.item() == pytest.approx(float(on.sum()) / TOKENS)
    assert torch.equal(result.fired, on.any(0))
    assert math.isfinite(result.squared_error)
    along = (result.gradients.W_dec * weights.W_dec).sum(-1)
    torch.testing.assert_close(result.along, along)
