"""Model and dictionaries may be in any precision each; what is measured is in float32 or more."""

import itertools

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation, apply
from circuits.graph import ordered
from hooked_qwen.forward import last_logits, resume, run_recording, unembed
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from saes.evaluation.baselines import evaluate_with_baselines
from saes.sae import sae
from saes.training.config import TrainConfig
from saes.training.held_out import HELD_OUT_CHARACTERS
from saes.training.run import train_suite
from tests.toys import (
    found_and_verified,
    shared_toy,
    speaking_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
)

MODELS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
PAIRS = [
    *itertools.product(MODELS, (torch.float32, torch.float64)),
    (torch.float32, torch.bfloat16),
]
SITES = ("attn_out.0", "mlp_in.1-mlp_out.1", "resid_post.1")
MLP = Site("mlp_out", 1)


@pytest.mark.parametrize(("model_dtype", "dtype"), PAIRS)
def test_a_circuit_is_found_verified_and_ablated(model_dtype, dtype):
    model, suite = shared_toy(dtype=model_dtype), toy_suite(*SITES[:2], dtype=dtype)
    prompts, config = toy_prompts(2, 3), DiscoverConfig(nodes=3, positions="sum", steps=1)
    found, record = found_and_verified(model, suite, prompts, config)
    assert record["nodes"]["n"] > 0
    strongest = tuple(n for n in ordered(found.graph) if n.kind == "feature")[:2]
    edit = Ablation(ablated=strongest, to="zero")
    result = ablate(Analysis.of(model, suite, prompts, config), edit, found.ranking)
    assert result["after"] != result["before"]
    with apply(Analysis.of(model, suite, prompts, config), edit):
        assert last_logits(model, prompts.clean).isfinite().all()
    assert suite[MLP].W_dec.dtype == dtype, "the caller's dictionaries stay as they are"


@pytest.mark.parametrize("estimator", ["patching", "ig-inputs", "relp", "exact"])
def test_every_estimator_takes_a_model_in_half_precision(estimator):
    config = DiscoverConfig(nodes=4, estimator=estimator, positions="sum", steps=2)
    model, suite = shared_toy(dtype=torch.bfloat16), toy_suite(*SITES, dtype=torch.float32)
    found = discover(Analysis.of(model, suite, toy_prompts(2, 4), config))
    assert any(effect for _, effect in found.ranking)


def test_effects_in_half_precision_are_those_of_the_same_weights_but_for_rounding():
    half = shared_toy(dtype=torch.bfloat16)
    full = hook(toy_hf(dtype=torch.bfloat16).float(), name="toy")
    suite, prompts = toy_suite(*SITES, dtype=torch.float32), toy_prompts(2, 4)
    config = DiscoverConfig(nodes=3, positions="sum", steps=2)
    rough, fine = (
        dict(discover(Analysis.of(model, suite, prompts, config)).ranking) for model in (half, full)
    )
    both = torch.tensor([[rough.get(node, 0.0), fine[node]] for node in fine])
    assert torch.corrcoef(both.T)[0, 1] > 0.98


@pytest.mark.parametrize("dtype", MODELS)
def test_captures_and_logits_are_wide_and_edits_fit_the_model(dtype):
    model, batch = shared_toy(dtype=dtype), toy_prompts(2, 4).clean
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    plain = last_logits(model, batch)
    assert plain.dtype == wide

    def same(value):
        assert value.dtype == wide
        return value

    with capture(model, [MLP]) as seen, intervene(model, {MLP: same}):
        assert torch.equal(last_logits(model, batch), plain), "rounded back to what it was"
    assert seen[MLP].dtype == wide
    with capture(model, [Site("resid_pre", 1)]) as seen:
        logits, arguments = run_recording(model, batch)
    final = resume(model, seen[Site("resid_pre", 1)], 1, arguments)
    again = unembed(model, final[:, -1:])[:, 0]
    assert again.dtype == wide
    rounding = 0.1 if dtype in (torch.bfloat16, torch.float16) else 1e-4
    torch.testing.assert_close(again, logits, rtol=0, atol=rounding)


@pytest.mark.parametrize("dtype", MODELS)
def test_dictionaries_are_trained_on_and_judged_with_a_model_of_any_precision(dtype, tmp_path):
    model = speaking_toy(dtype=dtype)
    specs = [sae(MLP, k=3), sae(Site("attn_out", 0), k=2, architecture="jumprelu")]
    stream = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
    quality = train_suite(
        model,
        specs,
        lambda: iter(["abcdefgh" * (HELD_OUT_CHARACTERS // 8 + 40)]),
        tmp_path / "suite",
        config=TrainConfig(width=10, tokens=16 * 10),
        stream=stream,
        evaluation_tokens=128,
    )
    assert all(q.fvu > 0 for q in quality)


def test_controls_are_fitted_on_a_model_of_another_precision():
    model = speaking_toy(dtype=torch.float64)
    dictionary = toy_suite("mlp_out.1", dtype=torch.float32)[MLP]
    tokens = torch.randint(1, 60, (12, 16), generator=torch.Generator().manual_seed(0))
    (judged,) = evaluate_with_baselines(model, [dictionary], tokens[:4], fitted_on=tokens[4:])
    assert set(judged.controls) == {"untrained", "PCA"}
