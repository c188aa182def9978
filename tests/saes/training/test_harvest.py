"""What the model computes in while dictionaries learn from it: chosen by measurement, and said."""

import json
from dataclasses import asdict

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture
from hooked_qwen.load import hook, load
from hooked_qwen.notices import Notice
from hooked_qwen.placement import find_device
from hooked_qwen.precision import computed_in
from hooked_qwen.shards import write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.tokens import Batch
from saes.evaluation.metrics import evaluate, held_out_blocks
from saes.sae import sae
from saes.suite import load_suite
from saes.training import harvest
from saes.training.config import TrainConfig
from saes.training.harvest import SAFE, choose_harvest, rounding_errors
from saes.training.held_out import HELD_OUT_CHARACTERS, held_out_text
from saes.training.run import RunOptions, train_suite
from tests.toys import SIZES, shared_toy, toy_hf, toy_tokenizer

SITE = Site("mlp_out", 1)
SITES = [Site("resid_post", 0), SITE]
BLOCKS = torch.randint(1, 60, (4, 16), generator=torch.Generator().manual_seed(0))
BATCH = Batch(tokens=BLOCKS, mask=torch.ones_like(BLOCKS, dtype=torch.bool))
STREAM = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
CONFIG = TrainConfig(width=10, tokens=16 * 12)


def texts():
    yield "cdefgh uvw" * (HELD_OUT_CHARACTERS // 10)
    yield "cdefgh uvwx" * 40


def train(model, out, **options):
    common = {"config": CONFIG, "stream": STREAM, "evaluation_tokens": 128} | options
    return train_suite(model, [sae(SITE, k=3)], texts, out, **common)


def trainable(device="cpu"):
    model = hook(toy_hf(dtype=torch.float32).to(device), tokenizer=toy_tokenizer(), name="toy")
    model.original_model.config.max_position_embeddings = 128
    return model


def large(moved_by=0.0):
    """One layer whose matrices have a million entries; all embeddings moved by a constant."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 1, "head_dim": 8}
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES | sizes)).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight += moved_by
    return hook(model, name="large")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inside_a_model_computes_as_if_loaded_in_that_precision_and_after_as_before(
    dtype, tmp_path
):
    toy_hf(dtype=torch.float32).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    model, loaded = load(tmp_path, device="cpu"), load(tmp_path, device="cpu", dtype=dtype)
    before = last_logits(model, BATCH)
    with computed_in(model, dtype), capture(model, SITES) as seen:
        rough = last_logits(model, BATCH)
    with capture(loaded, SITES) as expected:
        assert torch.equal(last_logits(loaded, BATCH), rough)
    assert all(torch.equal(seen[site], expected[site]) for site in SITES)
    assert torch.equal(last_logits(model, BATCH), before)
    with pytest.raises(KeyError), computed_in(model, dtype):
        raise KeyError
    assert torch.equal(last_logits(model, BATCH), before)


def test_errors_are_shares_of_the_variance():
    model = shared_toy(dtype=torch.float32)
    errors = rounding_errors(model, SITES, BLOCKS)
    with capture(model, SITES) as whole:
        last_logits(model, BATCH)
    with computed_in(model, torch.bfloat16), capture(model, SITES) as rounded:
        last_logits(model, BATCH)
    for site in SITES:
        x, rough = (v[site].flatten(0, 1).double() for v in (whole, rounded))
        expected = (rough - x).square().sum() / (x - x.mean(0)).square().sum()
        assert errors[site] == pytest.approx(float(expected))
        assert 0 < errors[site] < 0.1


def test_a_small_model_and_one_in_another_precision_stay_as_they_are():
    assert asdict(choose_harvest(shared_toy(dtype=torch.float32), SITES, BLOCKS, "auto")) == {
        "dtype": "float32", "why": "the model is small", "errors": {},
    }  # fmt: skip
    for dtype in ("bfloat16", "float16", "float64"):
        model = shared_toy(dtype=getattr(torch, dtype))
        assert choose_harvest(model, SITES, BLOCKS, "auto").dtype == dtype


def test_auto_takes_bfloat16_where_the_error_is_small_and_not_where_it_is_large():
    site = Site("resid_post", 0)
    small = choose_harvest(large(), [site], BLOCKS, "auto")
    spoilt = choose_harvest(large(moved_by=100.0), [site], BLOCKS, "auto")
    if not harvest.multiplies_bfloat16(find_device("cpu")):
        assert small.why == spoilt.why == "this processor does not multiply bfloat16"
        return
    assert small.dtype == "bfloat16"
    assert small.errors["resid_post.0"] <= SAFE
    assert spoilt.dtype == "float32"
    assert "of the variance at resid_post.0, over 0.01" in spoilt.why


def test_dictionaries_learn_from_rounded_activations_and_are_judged_on_exact_ones(tmp_path):
    model = trainable()
    quality = train(model, tmp_path / "harvested", harvest="bfloat16")
    rounded = hook(toy_hf(dtype=torch.float32).bfloat16(), tokenizer=toy_tokenizer(), name="toy")
    with computed_in(model, torch.bfloat16):
        train(model, tmp_path / "rounded", harvest="auto")
    train(trainable(), tmp_path / "exact", harvest="float32")
    found, same, exact = (
        load_suite(tmp_path / name)[SITE] for name in ("harvested", "rounded", "exact")
    )
    assert torch.equal(found.W_enc, same.W_enc)
    assert not torch.equal(found.W_enc, exact.W_enc)
    blocks = held_out_blocks(held_out_text(texts()), rounded, tokens=128)
    assert quality == evaluate(trainable(), [found], blocks)
    record = json.loads((tmp_path / "harvested/mlp_out.1/dictionary.json").read_text())
    assert record["training"]["harvest"]["dtype"] == "bfloat16"


def test_a_run_does_not_go_on_in_another_precision(tmp_path):
    class Cut(Exception):
        pass

    def cut(now):
        if now.step > 9:
            raise Cut

    keep = RunOptions(checkpoint_every=0.0, resume=True)
    with pytest.raises(Cut):
        train(trainable(), tmp_path, harvest="bfloat16", options=keep, report=cut)
    with pytest.raises(ValueError, match="harvested in"):
        train(trainable(), tmp_path, harvest="float32", options=keep)


def test_a_cache_has_the_precision_that_it_was_written_in(tmp_path):
    cache = write_cache(trainable(), [SITE], texts(), tmp_path / "c", config=STREAM, tokens=256)
    with pytest.raises(ValueError, match="leave out --harvest bfloat16"):
        train(trainable(), tmp_path / "out", cache=cache, harvest="bfloat16")


def test_a_measured_choice_is_said(tmp_path, monkeypatch, small_chunks):
    """Of a model that is large enough, on a processor that multiplies bfloat16."""
    small_chunks("saes.training.harvest.SHARED_FROM", 1)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with pytest.warns(Notice, match=r"harvested in bfloat16: the largest error of bfloat16 is"):
        train(trainable(), tmp_path / "out")
