"""A model is known by its weights and its configuration, wherever it lies and whatever its name."""

import json
import shutil
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM

from hooked_qwen.identity import identity, identity_of
from hooked_qwen.load import hook, load
from hooked_qwen.plain_model import load_plain
from hooked_qwen.shards import Cache, write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from saes.formats.finding import notify_of_another_model
from saes.formats.ours import read_record
from saes.sae import sae
from saes.suite import find, load_suite
from saes.training.config import TrainConfig
from saes.training.held_out import HELD_OUT_CHARACTERS
from saes.training.run import RunOptions, train_suite
from tests.toys import FAMILIES, toy, toy_hf, toy_tokenizer

CONFIG = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
LETTERS = ["abcdefgh" * 30] * 4


def save(folder, *, change=0.0, family="qwen3"):
    """A toy's files, one weight of one matrix moved by `change`."""
    model = toy_hf(family, torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += change
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_weights_have_one_identity(family, tmp_path):
    a = save(tmp_path / "a", family=family)
    b = shutil.copytree(a, tmp_path / "elsewhere" / "b")
    (b / "README.md").write_text("about", encoding="utf-8")
    config = json.loads((b / "config.json").read_text(encoding="utf-8"))
    config |= {"transformers_version": "4.0.0", "use_cache": False, "bos_token_id": 3}
    (b / "config.json").write_text(json.dumps(config), encoding="utf-8")
    in_memory = hook(AutoModelForCausalLM.from_pretrained(a), name="any")
    assert identity(load(a)) == identity(load(b)) == identity(in_memory)
    assert len(identity(in_memory)) == 16


def test_the_precision_that_holds_the_same_values_does_not_count(tmp_path):
    toy_hf("qwen3", torch.bfloat16).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    assert len({identity(load(tmp_path, dtype=dtype)) for dtype in dtypes}) == 1


def test_a_weight_or_an_entry_that_changes_the_logits_is_another_model(tmp_path):
    one = save(tmp_path / "one")
    other = save(tmp_path / "other", change=1e-6)
    third = shutil.copytree(one, tmp_path / "third")
    config = json.loads((third / "config.json").read_text(encoding="utf-8"))
    (third / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert len({identity(load(folder)) for folder in (one, other, third)}) == 3


def test_asked_again_it_is_not_computed_again_until_a_weight_is_written():
    """What is written behind torch's back is not seen, as the weights are not looked at again."""
    model = toy(dtype=torch.float32)
    first = identity(model)
    weight = model.original_model.get_parameter("lm_head._original_component.weight")
    weight.detach().numpy()[0, 0] += 1
    assert identity(model) == first
    assert identity_of(model.original_model) != first
    with torch.no_grad():
        weight[0, 1] += 1
    assert identity(model) != first


@pytest.fixture
def namesakes(tmp_path):
    """Two models in folders of one name."""
    return [load(save(tmp_path / str(n) / "A", change=n)) for n in (0, 1)]


def cached(model, out):
    site = sae(Site("mlp_out", 1), k=3).source
    return write_cache(model, [site], LETTERS, out, config=CONFIG, tokens=64), site


def test_two_models_of_one_name_do_not_share_a_cache(namesakes, tmp_path):
    cache, site = cached(namesakes[0], tmp_path / "cache")
    with pytest.raises(ValueError, match="activations of another model: model is 'A' there"):
        cached(namesakes[1], tmp_path / "cache")
    with pytest.raises(ValueError, match="activations of another model: .*model_hash is"):
        next(cache.buffers([site], model=namesakes[1], config=CONFIG))


def test_a_model_that_was_renamed_reads_its_cache(namesakes, tmp_path):
    cache, site = cached(namesakes[0], tmp_path / "cache")
    renamed = hook(toy_hf(dtype=torch.float32), name="B")
    assert next(cache.buffers([site], model=renamed, config=CONFIG)).values[site].shape == (32, 24)


def test_a_cache_without_a_hash_is_told_by_its_name(namesakes, tmp_path):
    cache, site = cached(namesakes[0], tmp_path / "cache")
    old = {k: v for k, v in cache.manifest.items() if k not in ("model_hash", "model_dtype")}
    assert next(Cache(cache.folder, old).buffers([site], model=namesakes[1], config=CONFIG))
    renamed = hook(toy_hf(dtype=torch.float32), name="B")
    with pytest.raises(ValueError, match="model is 'A' there, 'B' here"):
        next(Cache(cache.folder, old).buffers([site], model=renamed, config=CONFIG))


class Killed(Exception):
    pass


def train(model, out, *, after=None):
    def stop(now):
        if now.step == after:
            raise Killed

    return train_suite(
        model,
        [sae(Site("mlp_out", 1), k=3)],
        lambda: iter(["abcdefgh" * (HELD_OUT_CHARACTERS // 8), *LETTERS]),
        out,
        config=TrainConfig(width=10, tokens=16 * 12),
        stream=CONFIG,
        options=RunOptions(resume=True, checkpoint_every=0.0),
        evaluation_tokens=128,
        report=stop,
    )


def test_two_models_of_one_name_do_not_go_on_from_one_checkpoint(namesakes, tmp_path):
    out = tmp_path / "suite"
    with pytest.raises(Killed):
        train(namesakes[0], out, after=10)
    with pytest.raises(ValueError, match="is of another training run: model hash was"):
        train(namesakes[1], out)
    assert train(namesakes[0], out)


def test_dictionaries_say_which_model_they_were_trained_on(namesakes, tmp_path):
    out = tmp_path / "suite"
    train(namesakes[0], out)
    record = json.loads((out / "mlp_out.1/dictionary.json").read_text(encoding="utf-8"))
    assert record["model"] == {"name": "A", "hash": identity(namesakes[0]), "d_model": 24}
    load_suite(out).notify_of_another_model(namesakes[0])
    with pytest.warns(UserWarning, match=r"mlp_out\.1 of .* were trained on another model, A "):
        load_suite(out).notify_of_another_model(namesakes[1])


def test_the_bundled_dictionaries_say_which_model_they_were_trained_on():
    known = identity_of(load_plain("bundled"))
    for entry in find("bundled").entries:
        assert read_record(entry.place.fetch(entry.files[1]).parent)["model"]["hash"] == known


def test_dictionaries_without_a_hash_give_no_alarm(namesakes, tmp_path):
    out = tmp_path / "suite"
    train(namesakes[0], out)
    path = out / "mlp_out.1/dictionary.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["model"]["hash"]
    path.write_text(json.dumps(record), encoding="utf-8")
    found = find(out)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        notify_of_another_model(namesakes[1], found, found.entries)
    assert told == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_that_was_rounded_on_loading_is_known_as_what_its_files_hold(dtype, tmp_path):
    folder = save(tmp_path / "whole")
    rounded = load(folder, dtype=dtype)
    assert identity(rounded) == identity(load(folder))
    with torch.no_grad():
        next(rounded.parameters())[0, 0] += 1
    assert identity(rounded) != identity(load(folder))


def test_a_model_has_its_identity_on_every_device_and_small_weights_come_in_one_copy(pretend):
    here, there = (hook(toy_hf(dtype=torch.float32).to(d), name="a") for d in ("cpu", "pretend"))
    with pretend.watch() as seen:
        assert identity(there) == identity(here)
    assert seen.of("sync").total() == 1
