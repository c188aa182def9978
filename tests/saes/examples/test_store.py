"""A store is the same bytes however often it was interrupted, and only ever of one thing."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.dictionary import DictionarySpec
from saes.examples.store import (
    MANIFEST,
    PROGRESS,
    StoreConfig,
    build_store,
    fingerprint,
    open_store,
)
from tests.toys import random_dictionary, speaking_toy, toy_hf, toy_tokenizer

CONFIG = StoreConfig(tokens=8 * 20, block_length=8, blocks_per_pass=3, top=4, sampled=2)
LETTERS = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? "


def texts():
    yield LETTERS * 3
    yield LETTERS[::-1] * 4


def dictionary(source, target, seed):
    spec = DictionarySpec(source=source, target=target, architecture="topk", k=3, signed=seed == 1)
    return random_dictionary(spec, width=10, seed=seed, dtype=torch.float32)


@pytest.fixture(scope="module")
def model():
    return speaking_toy("qwen3", torch.float32)


@pytest.fixture(scope="module")
def suite():
    mlp_in, mlp_out, attn = Site("mlp_in", 1), Site("mlp_out", 1), Site("attn_out", 2)
    return [
        dictionary(mlp_in, mlp_out, 0),
        dictionary(mlp_out, mlp_out, 1),
        dictionary(attn, attn, 2),
    ]


def build(model, suite, out, **changes):
    corpus = changes.pop("texts", texts)
    config = changes.pop("config", CONFIG)
    return build_store(model, suite, corpus(), out, config=config, **changes)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Stop(Exception):
    pass


def stop_at(limit):
    def report(done, total):
        if done >= limit:
            raise Stop

    return report


def test_a_store_holds_the_examples_of_every_dictionary(model, suite, tmp_path):
    store = build(model, suite, tmp_path / "store")
    assert set(files(tmp_path / "store")) == {
        "manifest.json",
        "tokens.safetensors",
        "mlp_in.1-mlp_out.1.safetensors",
        "mlp_out.1.safetensors",
        "attn_out.2.safetensors",
    }
    batch = Batch(tokens=store.blocks, mask=torch.ones_like(store.blocks, dtype=torch.bool))
    with torch.no_grad(), capture(model, [d.source for d in suite]) as seen:
        run_through(model, batch, 2)
    for each in suite:
        f, found = each.encode(seen[each.source]).dense(), store.examples(each)
        assert found.tokens == CONFIG.tokens
        for i in range(each.n_features):
            assert found.density(i) == pytest.approx(float((f[..., i] > 0).double().mean()))
            assert len(found.of(i, found.top)) <= 4
            if found.largest(i) is not None:
                assert found.largest(i) == pytest.approx(float(f[..., i].max()), rel=1e-4)
            for e in found.of(i, found.top) + found.of(i, found.sampled):
                assert e.values[e.peak] > 0
            histogram = found.histogram(i) or {"counts": []}
            assert sum(histogram["counts"]) == int((f[..., i] > 0).sum())


def test_a_store_of_an_earlier_version_has_no_histograms(model, suite, tmp_path):
    store = build(model, suite, tmp_path / "store")
    path = tmp_path / "store" / "mlp_out.1.safetensors"
    earlier = {k: v for k, v in load_file(path).items() if not k.startswith("counts")}
    assert earlier.keys() != load_file(path).keys()
    save_file(earlier, path)
    found = store.examples(suite[1])
    assert [found.histogram(i) for i in range(suite[1].n_features)] == [None] * 10
    assert build(model, suite, tmp_path / "store").manifest == store.manifest


def test_work_that_an_earlier_version_left_is_begun_again(model, suite, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises(Stop):
        build(model, suite, out, checkpoint_blocks=3, report=stop_at(6))
    left = load_file(out / PROGRESS)
    save_file({k: v for k, v in left.items() if not k.endswith("/counts")}, out / PROGRESS)
    with pytest.raises(ValueError, match="left by an earlier version, without histograms: remove"):
        build(model, suite, out)


@pytest.mark.parametrize("limits", [(6,), (4, 11, 17), (20,)])
def test_an_interrupted_store_is_the_same_to_the_byte(model, suite, tmp_path, limits):
    build(model, suite, tmp_path / "whole")
    out = tmp_path / "cut"
    for limit in limits:
        with pytest.raises(Stop):
            build(model, suite, out, checkpoint_blocks=3, report=stop_at(limit))
        assert (out / PROGRESS).exists()
        with pytest.raises(ValueError, match="no finished examples"):
            open_store(out)
    build(model, suite, out, checkpoint_blocks=3)
    assert files(out) == files(tmp_path / "whole")


def test_what_was_done_is_not_done_again(model, suite, tmp_path):
    read = []
    handle = model.embed.register_forward_pre_hook(lambda _, given: read.append(given[0].tolist()))
    try:
        build(model, suite, tmp_path / "whole")
        whole, read[:] = list(read), []
        assert len(whole) == 7, "three blocks at a time"
        out = tmp_path / "store"
        with pytest.raises(Stop):
            build(model, suite, out, checkpoint_blocks=6, report=stop_at(9))
        build(model, suite, out)
        assert read == whole[:3] + whole[2:]
        build(model, suite, out)
        assert len(read) == 8, "a finished store is opened as it is"
    finally:
        handle.remove()


def test_progress_is_told(model, suite, tmp_path):
    told = []
    build(model, suite, tmp_path / "store", report=lambda *now: told.append(now))
    assert told == [(min(20, n), 20) for n in (3, 6, 9, 12, 15, 18, 21)]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config", {"config": replace(CONFIG, seed=1)}),
        ("text", {"texts": lambda: iter([LETTERS[3:] * 9])}),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_store_of_something_else_is_left_alone(model, suite, tmp_path, name, changes, finished):
    out = tmp_path / "store"
    if finished:
        build(model, suite, out)
    else:
        with pytest.raises(Stop):
            build(model, suite, out, checkpoint_blocks=3, report=stop_at(9))
    before = files(out)
    with pytest.raises(ValueError, match=f"made from something else \\(other {name}\\): choose"):
        build(model, suite, out, **changes)
    assert files(out) == before


def test_another_model_or_dictionary_is_something_else(model, suite, tmp_path):
    out = tmp_path / "store"
    store = build(model, suite, out)
    changed = dictionary(Site("mlp_out", 1), Site("mlp_out", 1), 7)
    with pytest.raises(ValueError, match="other dictionaries"):
        build(model, [suite[0], changed, suite[2]], out)
    with pytest.raises(ValueError, match="are of another mlp_out.1: make them again"):
        store.examples(changed)
    elsewhere = dictionary(Site("attn_out", 0), Site("attn_out", 0), 7)
    with pytest.raises(
        ValueError, match="has no examples of attn_out.0: it has attn_out.2, mlp_in"
    ):
        store.examples(elsewhere)
    hf = toy_hf("qwen3", torch.float32)
    hf.lm_head.weight.data += 1
    other = hook(hf, tokenizer=toy_tokenizer(), name="toy")
    with pytest.raises(ValueError, match="other model"):
        build(other, suite, out)


def test_a_fingerprint_sees_every_tensor_and_the_spec(suite):
    spec, weights = suite[0].spec, suite[0].state_dict()
    prints = {fingerprint(suite[0])}
    for name in weights:
        changed = {k: v.clone() for k, v in weights.items()}
        changed[name].flatten()[0] += 1
        prints.add(fingerprint(type(suite[0])(spec, changed)))
    prints.add(fingerprint(type(suite[0])(replace(spec, k=2), weights)))
    assert len(prints) == len(weights) + 2
    assert fingerprint(type(suite[0])(spec, weights)) in prints


def test_there_must_be_text_and_dictionaries(model, suite, tmp_path):
    with pytest.raises(ValueError, match="shorter than one block of 8 tokens"):
        build(model, suite, tmp_path / "a", texts=lambda: iter(["abc"]))
    with pytest.raises(ValueError, match="there are no dictionaries"):
        build(model, [], tmp_path / "a")
    with pytest.raises(ValueError, match="two dictionaries are called attn_out.2"):
        build(model, [*suite, suite[2]], tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_length": 0}, "block_length is 0: expected at least 1"),
        ({"blocks_per_pass": 0}, "blocks_per_pass is 0"),
        ({"top": 0}, "top is 0"),
        ({"sampled": -1}, "sampled is -1: expected 0 or more"),
        ({"block_length": 40_000}, "block_length is 40000: expected at most 32767"),
        ({"tokens": 7}, "cannot look at 7 tokens: at least one block of 8"),
    ],
)
def test_a_configuration_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_a_folder_that_is_no_store(model, suite, tmp_path):
    with pytest.raises(ValueError, match="manifest.json is missing"):
        open_store(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="manifest.json is not JSON"):
        open_store(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": "run/1"}))
    with pytest.raises(ValueError, match="has schema 'run/1', expected 'feature-examples/1'"):
        open_store(tmp_path)


def test_a_damaged_store_says_which_file(model, suite, tmp_path):
    store = build(model, suite, tmp_path / "store")
    (tmp_path / "store/mlp_out.1.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="mlp_out.1.safetensors is missing or damaged"):
        store.examples(suite[1])
