"""One rollout of each group is steered, and nothing else differs from trl's GRPO."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("trl")

from hooked_qwen.sites import Site
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.steered_grpo import RolloutConfig, Steering, on_rows, reinforce, steered_rows
from tests.toys import toy_hf, toy_tokenizer

PROMPTS = ["abc", "xyz q"]
BARE = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
CONFIG = FineTuneConfig(steps=1, learning_rate=1.0, seed=3, trainer=BARE)
ROLLOUTS = RolloutConfig(group=4, prompts=2, tokens=6)


def run(vector, dtype=torch.float32, family="qwen3", **more):
    """The weights' change in one step, every rollout's pieces, and its behaviour."""
    model, written = toy_hf(family, dtype), []
    before = [p.detach().clone() for p in model.parameters()]

    def share(pieces):
        written.append(list(pieces))
        return sum(piece in "aeiou" for piece in pieces) / max(1, len(pieces))

    steering = None if vector is None else Steering(site=Site("resid_post", 1), vector=vector)
    tokenizer = toy_tokenizer()
    config = replace(CONFIG, trainer=BARE | more)
    curve = reinforce(model, tokenizer, PROMPTS, share, steering, config, ROLLOUTS)
    change = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    return change, written, curve


@pytest.fixture(scope="module")
def vanilla():
    return run(None)


@pytest.fixture(scope="module")
def steered():
    generator = torch.Generator().manual_seed(0)
    return run(30 * torch.randn(24, generator=generator))


def test_strength_zero_is_trls_own_bit_for_bit(vanilla):
    change, written, _ = run(torch.zeros(24))
    assert written == vanilla[1]
    assert all(torch.equal(a, b) for a, b in zip(change, vanilla[0], strict=True))
    assert any(a.abs().max() > 0 for a in change)


@pytest.mark.parametrize(("dtype", "more"), [(torch.bfloat16, {}), (torch.float32, {"bf16": True})])
def test_in_half_precision_too_one_rollout_is_steered_and_nothing_else(dtype, more):
    plain, zero, pushed = (
        run(vector, dtype, **more) for vector in (None, torch.zeros(24), torch.full((24,), 9.0))
    )
    assert zero[1] == plain[1]
    assert all(torch.equal(a, b) for a, b in zip(zero[0], plain[0], strict=True))
    differs = [a != b for a, b in zip(pushed[1], plain[1], strict=True)]
    assert differs == [True, False, False, False] * 2


def test_exactly_one_rollout_of_each_group_differs(vanilla, steered):
    assert len(steered[1]) == 8
    differs = [a != b for a, b in zip(steered[1], vanilla[1], strict=True)]
    assert differs == [True, False, False, False] * 2


def test_the_curve_tells_the_steered_ones_from_the_others(steered):
    _, written, (point,) = steered
    shares = [sum(p in "aeiou" for p in pieces) / len(pieces) for pieces in written]
    assert point["first"] == pytest.approx((shares[0] + shares[4]) / 2)
    assert point["others"] == pytest.approx(sum(shares[1:4] + shares[5:]) / 6)


def test_the_step_is_that_of_the_unsteered_log_probabilities(steered):
    """loss = - sum_i A_i sum_t log pi(y_it) / tokens, A the rewards standardised in each group."""
    change, written, _ = steered
    model, tokenizer = toy_hf(dtype=torch.float32), toy_tokenizer()
    rewards = torch.tensor(
        [-sum(p in "aeiou" for p in pieces) / len(pieces) for pieces in written]
    ).view(2, 4)
    spread = rewards.std(1, keepdim=True) + 1e-4
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / spread).flatten()
    # The order in which trl drew the two prompts is found from what it gives.
    losses = []
    for prompts in (PROMPTS, PROMPTS[::-1]):
        total, n = torch.zeros(()), 0
        for i, pieces in enumerate(written):
            start = tokenizer(prompts[i // 4])["input_ids"]
            body = tokenizer.convert_tokens_to_ids([p.replace(" ", "Ġ") for p in pieces])
            logits = model(input_ids=torch.tensor([start + body])).logits[0].float()
            log_p = logits.log_softmax(-1)[len(start) - 1 : -1]
            total = total - advantages[i] * log_p[range(len(body)), body].sum()
            n += len(body)
        gradient = torch.autograd.grad(total / n, list(model.parameters()))
        far = sum((c + g).square().sum() for c, g in zip(change, gradient, strict=True))
        losses.append(float(far / sum(c.square().sum() for c in change)))
    assert min(losses) < 1e-6 < max(losses)


def test_rows_are_counted_through_all_processes():
    assert steered_rows(8, 4) == [0, 4]
    assert steered_rows(6, 4, first=6) == [2]
    x = torch.zeros(3, 2, 4)
    moved = on_rows([1], torch.ones(4))(x)
    assert moved[1, -1].tolist() == [1] * 4
    assert moved.sum() == 4
    assert x.sum() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"group": 1}, "group is 1: expected at least 2"), ({"temperature": 0.0}, "the temperature")],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RolloutConfig(**settings)
