"""The penalty is the formula, its gradient autograd's, and without weight it is plain training."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from hooked_qwen.nodes import Node
from hooked_qwen.plain_model import captured
from hooked_qwen.sites import Site
from saes.scope.chosen_features import (
    chosen_features,
    mean_pre_activations,
)
from saes.scope.fine_tune import FeaturePenalty, FineTuneConfig, collator, excess, fine_tune
from saes.scope.trained_weights import opened
from tests.toys import VOCABULARY, full_suite, toy_hf

ROWS = [[(7 * i + 3 * j) % (VOCABULARY - 1) + 1 for j in range(5 + i % 3)] for i in range(8)]
NODES = (Node("mlp_out.2", 3), Node("resid_post.1", 4), Node("mlp_out.2", 0))
# One step that moves every weight by minus its gradient.
BARE = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
ONE_STEP = FineTuneConfig(steps=1, batch=8, learning_rate=1.0, trainer=BARE)


def penalty_on(model, weight, nodes=NODES, alpha=0.2):
    chosen = chosen_features(full_suite(dtype=next(model.parameters()).dtype), nodes, model)
    return FeaturePenalty(chosen, torch.full((len(nodes),), alpha), weight)


def by_hand(model, alpha=0.2):
    """Cross-entropy and penalty, text by text, on what Hugging Face's own hooks give."""
    suite, total, spare, n, read = full_suite(), 0.0, 0.0, 0, {}
    layers = model.model.layers
    handles = [
        layers[2].mlp.register_forward_hook(lambda m, a, out: read.update({"mlp_out.2": out})),
        layers[1].register_forward_hook(lambda m, a, out: read.update({"resid_post.1": out})),
    ]
    for row in ROWS:
        tokens = torch.tensor([row])
        logits = model(input_ids=tokens).logits
        total = total + F.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
        for node in NODES:
            dictionary = suite[node.site]
            encoder, bias = dictionary.W_enc[node.feature], dictionary.b_enc[node.feature]
            pre = read[node.site][0] @ encoder + bias
            spare = spare + (pre[1:] - alpha).clamp_min(0).sum()
        n += len(row) - 1
    for handle in handles:
        handle.remove()
    return total / n, spare / n


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_the_gradient_is_that_of_plain_hooks(family):
    model = toy_hf(family)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ce, spare = by_hand(model)
    (ce + 0.7 * spare).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (point,) = fine_tune(model, ROWS, penalty_on(model, 0.7), ONE_STEP, pad=0)
    for name, p in model.named_parameters():
        # The model's loss is computed in float32, the penalty in float64.
        torch.testing.assert_close(p, before[name] - gradients[name], rtol=1e-5, atol=1e-6)
    assert point["cross_entropy"] == pytest.approx(float(ce), rel=1e-5)
    assert point["penalty"] == pytest.approx(float(spare), rel=1e-6)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_the_penaltys_own_gradient_is_exact(family):
    model = toy_hf(family)
    _, spare = by_hand(model)
    expected = torch.autograd.grad(spare, list(model.parameters()), allow_unused=True)
    penalty, batch = penalty_on(model, 1.0), collator(0)([{"input_ids": row} for row in ROWS])
    with captured(model, penalty.chosen.sites) as seen:
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    trained, mask = batch["labels"] != -100, batch["attention_mask"].bool()
    counted = penalty.chosen.counted(seen, trained, mask)
    total = excess(penalty.chosen.pre_activations(seen), penalty.alpha, counted) / trained.sum()
    found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("rank", "dtype", "more"),
    [
        (None, torch.float32, {}),
        (2, torch.float32, {}),
        (None, torch.bfloat16, {}),
        (2, torch.bfloat16, {}),
        (2, torch.float32, {"bf16": True}),
    ],
)
def test_without_weight_it_is_plain_training_bit_for_bit(rank, dtype, more, tmp_path):
    def trained(train):
        model = opened(toy_hf(dtype=dtype), rank, base="toy")
        train(model)
        return {name: p.detach() for name, p in model.named_parameters()}

    config = FineTuneConfig(steps=3, batch=4, learning_rate=1e-2, seed=5, trainer=more)

    def plain(model, folder):
        arguments = TrainingArguments(
            folder, max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, seed=5,
            use_cpu=True, report_to=[], save_strategy="no", remove_unused_columns=False,
            disable_tqdm=True, **more,
        )  # fmt: skip
        data = [{"input_ids": row} for row in ROWS]
        Trainer(model, arguments, collator(0), train_dataset=data).train()

    def with_weight(weight):
        return lambda model: fine_tune(model, ROWS, penalty_on(model, weight), config, pad=0)

    expected = trained(lambda model: plain(model, tmp_path))
    found, other = trained(with_weight(0.0)), trained(with_weight(0.5))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(other[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "more", [{"gradient_accumulation_steps": 4}, {"gradient_checkpointing": True}]
)
def test_how_a_step_is_computed_changes_nothing(more):
    def after(config):
        model = toy_hf()
        fine_tune(model, ROWS, penalty_on(model, 0.7), config, pad=0)
        return list(model.parameters())

    batch = 8 // more.get("gradient_accumulation_steps", 1)
    other = FineTuneConfig(steps=1, batch=batch, learning_rate=1.0, trainer=BARE | more)
    for one, two in zip(after(ONE_STEP), after(other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_it_brings_features_down():
    model = toy_hf(dtype=torch.float32)
    alpha = torch.full((3,), -1.0)
    penalty = FeaturePenalty(penalty_on(model, 1.0).chosen, alpha, 5.0)
    before = mean_pre_activations(model, penalty.chosen, ROWS)
    config = FineTuneConfig(steps=20, batch=8, learning_rate=1e-2)
    curve = fine_tune(model, ROWS, penalty, config, pad=0)
    assert curve[-1]["penalty"] < 0.5 * curve[0]["penalty"]
    assert (mean_pre_activations(model, penalty.chosen, ROWS) < before).all()


def test_norm_outliers_do_not_count():
    model = toy_hf()
    chosen = penalty_on(model, 1.0).chosen
    seen = {site: torch.ones(1, 6, 24, dtype=torch.float64) for site in chosen.sites}
    seen[Site("mlp_out", 2)][0, 3] *= 100
    everything = torch.ones(1, 6, dtype=torch.bool)
    counted = chosen.counted(seen, everything, everything)
    assert counted[0].tolist() == [True, True, True, False, True, True]


def test_settings_that_make_no_sense_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="steps is 0"):
        FineTuneConfig(steps=0)
    with pytest.raises(ValueError, match="learning rate is 0"):
        FineTuneConfig(learning_rate=0.0)
    with pytest.raises(ValueError, match="lambda is -1"):
        penalty_on(toy_hf(), -1.0)
    with pytest.raises(ValueError, match="the rank is 0"):
        opened(toy_hf(), 0, base="toy")
    model = toy_hf(dtype=torch.float32)
    wrong = FineTuneConfig(trainer={"no_such": 1})
    with pytest.raises(ValueError, match="TrainingArguments does not take that.*no_such"):
        fine_tune(model, ROWS, penalty_on(model, 1.0), wrong, pad=0)
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="2 GPUs are visible"):
        fine_tune(model, ROWS, penalty_on(model, 1.0), ONE_STEP, pad=0)


def test_a_penalty_that_can_change_nothing_is_refused():
    model = toy_hf(dtype=torch.float32).requires_grad_(False)
    model.lm_head.requires_grad_(True)
    with pytest.raises(ValueError, match="nothing that is trained reaches"):
        fine_tune(model, ROWS, penalty_on(model, 1.0), ONE_STEP, pad=0)


def test_the_trainer_says_where_it_cannot_compute(pretend):
    model = toy_hf(dtype=torch.float32).to("pretend")
    with pytest.raises(ValueError, match="the model is on pretend.* transformers trains on cpu"):
        fine_tune(model, ROWS, penalty_on(model, 1.0), ONE_STEP, pad=0)
