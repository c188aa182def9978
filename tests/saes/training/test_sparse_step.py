"""The hand-written step equals autograd of the plain formula."""

from dataclasses import replace

import pytest
import torch

from saes.nonlinearities import topk
from saes.training.encode import TopKSelection
from saes.training.sparse_step import sparse_step
from saes.training.step import Dead, DictionaryWeights, ScratchMemory

FEATURES, TOKENS = 12, 9
NONE = Dead(features=torch.zeros(0, dtype=torch.long))
PLAIN = TopKSelection(k=3, of_batch=False, prefixes=(FEATURES,))


def problem(seed=0, d_source=6, d_target=5, *, skip=False):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = DictionaryWeights(
        W_enc=draw(FEATURES, d_source),
        b_enc=draw(FEATURES),
        W_dec=draw(FEATURES, d_target),
        b_dec=draw(d_target),
        W_skip=draw(d_target, d_source) if skip else None,
    )
    return weights, draw(TOKENS, d_source), draw(TOKENS, d_target)


def features(pre, choice):
    if not choice.of_batch:
        return topk(pre, choice.k)
    smallest = pre.relu().flatten().sort(descending=True).values[choice.k * len(pre) - 1]
    return torch.where(pre >= smallest, pre.relu(), 0.0)


def dense_loss(weights, x, y, choice, dead, coefficient):
    """The formula of the module's docstring, with nothing sparse about it."""
    pre = x @ weights.W_enc.T + weights.b_enc
    f = features(pre, choice)
    rest = y - weights.b_dec - (0 if weights.W_skip is None else x @ weights.W_skip.T)
    errors = [rest - f[:, :p] @ weights.W_dec[:p] for p in choice.prefixes]
    loss = sum(e.square().mean() for e in errors) / len(errors)
    if len(dead):
        k_aux = min(y.shape[-1] // 2, len(dead))
        e = errors[-1].detach()
        revived = topk(pre[:, dead], k_aux) @ weights.W_dec[dead]
        loss = loss + coefficient * (e - revived).square().sum() / e.square().sum()
    return loss


@pytest.mark.parametrize("dead", [[], [1, 4, 7], [0]], ids=["alive", "three", "one"])
@pytest.mark.parametrize("widths", [(6, 5), (5, 5)], ids=["transcoder", "sae"])
@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize("prefixes", [(12,), (3, 12), (1, 2, 6, 12)], ids=len)
@pytest.mark.parametrize("of_batch", [False, True], ids=["topk", "batch-topk"])
def test_gradients_equal_autograd_of_the_dense_formula(of_batch, prefixes, skip, widths, dead):
    weights, x, y = problem(0, *widths, skip=skip)
    dead = torch.tensor(dead, dtype=torch.long)
    choice = TopKSelection(k=3, of_batch=of_batch, prefixes=prefixes)
    listed = Dead(features=dead)
    result = sparse_step(weights, x, y, choice=choice, dead=listed, aux_coefficient=0.5)
    leaves = {n: w.clone().requires_grad_() for n, w in weights.named().items()}
    loss = dense_loss(DictionaryWeights(**leaves), x, y, choice, dead, 0.5)
    loss.backward()
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-10)
    for name, gradient in result.gradients.named().items():
        torch.testing.assert_close(gradient, leaves[name].grad, atol=1e-12, rtol=1e-10, msg=name)
    along = (leaves["W_dec"].grad * weights.W_dec).sum(-1)
    torch.testing.assert_close(result.along, along, atol=1e-12, rtol=1e-10)


def test_what_the_log_shows():
    weights, x, y = problem(3)
    result = sparse_step(weights, x, y, choice=PLAIN, dead=NONE, aux_coefficient=0.0)
    f = topk(x @ weights.W_enc.T + weights.b_enc, 3)
    error = y - f @ weights.W_dec - weights.b_dec
    assert result.squared_error.item() == pytest.approx(float(error.square().sum()))
    assert result.l0.item() == pytest.approx(float((f > 0).sum()) / TOKENS)
    assert torch.equal(result.fired, (f > 0).any(0))


def test_the_smallest_feature_of_a_batch_is_known_for_the_next():
    weights, x, y = problem(3)
    choice = replace(PLAIN, of_batch=True)
    result = sparse_step(weights, x, y, choice=choice, dead=NONE, aux_coefficient=0.0)
    f = features(x @ weights.W_enc.T + weights.b_enc, choice)
    assert result.numbers["smallest"].item() == pytest.approx(float(f[f > 0].min()))


def test_a_rough_encoder_keeps_exact_values():
    """In bfloat16 the choice may differ where two features are nearly equal; values may not."""
    weights, x, y = problem(4)
    weights = DictionaryWeights(**{n: w.float() for n, w in weights.named().items()})
    x, y = x.float(), y.float()
    rough = replace(PLAIN, precision="bfloat16", k=FEATURES)
    exact = replace(PLAIN, k=FEATURES)
    results = [
        sparse_step(weights, x, y, choice=choice, dead=NONE, aux_coefficient=0.0)
        for choice in (rough, exact)
    ]
    # With every feature chosen, nothing is left to choose, and the gradients must agree.
    for name, gradient in results[0].gradients.named().items():
        torch.testing.assert_close(
            gradient, results[1].gradients.named()[name], atol=1e-6, rtol=1e-4
        )


def test_auxk_gives_dead_features_an_encoder_gradient():
    weights, x, y = problem(1)
    weights.b_enc[2] = 0.1

    def gradient(dead):
        choice = replace(PLAIN, k=1)
        result = sparse_step(weights, x, y, choice=choice, dead=dead, aux_coefficient=1.0)
        return result.gradients.W_enc[2]

    assert (gradient(Dead(features=torch.tensor([2]))) - gradient(NONE)).abs().max() > 1e-6


@pytest.mark.parametrize("dead", [[5], [1, 4, 7], list(range(FEATURES))], ids=len)
def test_features_that_fill_up_the_list_of_dead_ones_change_nothing(dead):
    weights, x, y = problem(2)
    others = [feature for feature in range(FEATURES) if feature not in dead]
    counted = torch.tensor([True] * len(dead) + [False] * len(others))
    results = [
        sparse_step(weights, x, y, choice=PLAIN, dead=listed, aux_coefficient=0.5)
        for listed in (
            Dead(features=torch.tensor(dead)),
            Dead(features=torch.tensor(dead + others), counted=counted),
        )
    ]
    one, other = (r.gradients.named() | {"along": r.along, "loss": r.loss} for r in results)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-12, rtol=1e-10, msg=name)


@pytest.mark.parametrize("size", [1, 4 * FEATURES, TOKENS * FEATURES, 10**4])
def test_encoding_a_few_tokens_at_a_time_changes_nothing(small_chunks, size):
    weights, x, y = problem(5)
    whole = sparse_step(weights, x, y, choice=PLAIN, dead=NONE, aux_coefficient=0.0)
    small_chunks("saes.training.encode.ENCODED_AT_ONCE", size)
    parts = sparse_step(weights, x, y, choice=PLAIN, dead=NONE, aux_coefficient=0.0)
    assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-12)
    for name, gradient in parts.gradients.named().items():
        torch.testing.assert_close(gradient, whole.gradients.named()[name], msg=name)


def test_steps_that_share_memory_give_the_same_gradients():
    """A wide dictionary, a narrow one and the wide one again, as `fit` trains them in turn."""
    memory = ScratchMemory()
    for widths in [(6, 5), (3, 2), (6, 5)]:
        weights, x, y = problem(6, *widths)
        alone, together = (
            sparse_step(weights, x, y, choice=PLAIN, dead=NONE, aux_coefficient=0.0, memory=m)
            for m in (None, memory)
        )
        for name, gradient in together.gradients.named().items():
            torch.testing.assert_close(gradient, alone.gradients.named()[name], rtol=0, atol=0)
