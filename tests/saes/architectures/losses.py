"""Losses of architectures that learn their sparsity, token by token, as the papers write them."""

import pytest
import torch

from saes.architectures.architecture import StepOptions
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
    """One token at a time."""
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


def equals_autograd(weights, x, y, architecture):
    """Loss and gradients of a step are those of the plain formula."""
    result = step(weights, x, y, architecture)
    leaves = {n: w.clone().requires_grad_() for n, w in weights.named().items()}
    loss = plain_loss(DictionaryWeights.of(leaves), x, y, architecture, 0.7)
    loss.backward()
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-10)
    for name, gradient in result.gradients.named().items():
        torch.testing.assert_close(gradient, leaves[name].grad, atol=1e-12, rtol=1e-10, msg=name)
