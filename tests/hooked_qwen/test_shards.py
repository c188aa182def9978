"""A cache gives back the stream it was written from, whole or cut off, and nothing else."""

import json

import pytest
import torch

from hooked_qwen.shards import Cache, write_cache
from hooked_qwen.stream import StreamConfig, activation_batches, shuffled
from tests.hooked_qwen.test_stream import CONFIG, MLP, POST, SITES, text, toy_with_tokenizer

TOKENS = 160


@pytest.fixture(scope="module")
def model():
    return toy_with_tokenizer()


def write(model, out, texts=None, **options):
    chosen = {"config": CONFIG, "tokens": TOKENS} | options
    return write_cache(model, SITES, texts or text(), out, **chosen)


@pytest.fixture
def cache(model, tmp_path):
    return write(model, tmp_path / "cache")


def read(cache, sites=SITES, **options):
    return cache.buffers(sites, **({"model": toy_with_tokenizer(), "config": CONFIG} | options))


def test_training_from_a_cache_sees_the_same_batches(model, cache):
    live = activation_batches(model, SITES, text(), config=CONFIG)
    kept = shuffled(read(cache), config=CONFIG)
    for _ in range(TOKENS // CONFIG.batch_size):
        one, other = next(live), next(kept)
        for site in SITES:
            assert torch.equal(one.values[site], other.values[site])
            assert torch.equal(one.outlier[site], other.outlier[site])


def test_a_cache_can_be_read_from_any_buffer_and_goes_round(cache):
    n = len(cache.manifest["shards"])
    first = next(read(cache)).values[POST]
    for start in (n, 2 * n):
        assert torch.equal(next(read(cache, start=start)).values[POST], first)
    assert not torch.equal(next(read(cache, start=1)).values[POST], first)


def test_a_cache_that_was_cut_off_ends_the_same(model, tmp_path, cache):
    class Cut(Exception):
        pass

    def stop(done, _):
        if done > 60:
            raise Cut

    with pytest.raises(Cut):
        write(model, tmp_path / "other", report=stop)
    left = len(Cache.open(tmp_path / "other").manifest["shards"])
    assert 0 < left < len(cache.manifest["shards"])
    assert write(model, tmp_path / "other").manifest == cache.manifest


def test_a_cache_does_not_go_on_with_another_text(model, tmp_path):
    write(model, tmp_path / "cut", tokens=60)
    other = text()
    other[1] = "q" * 11
    with pytest.raises(ValueError, match="the text is not the one that was read before"):
        write(model, tmp_path / "cut", texts=other)
    write(model, tmp_path / "cut", texts=[*text(), "more" * 10])


def test_a_cache_keeps_the_tokens_to_judge_on(model, tmp_path):
    held_out = torch.arange(16).view(2, 8)
    cache = write(model, tmp_path / "cache", held_out=held_out, tokens=60)
    assert torch.equal(cache.held_out(), held_out)
    with pytest.raises(ValueError, match="is a cache of another text"):
        write(model, tmp_path / "cache", held_out=held_out + 1)
    again = write(model, tmp_path / "cache", held_out=held_out)
    assert torch.equal(again.held_out(), held_out)
    assert torch.equal(write(model, tmp_path / "cache").held_out(), held_out)
    (tmp_path / "cache/held-out.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="held-out.safetensors is not what was written"):
        again.held_out()


def test_a_cache_without_tokens_to_judge_on(cache):
    assert cache.held_out() is None


def test_half_precision_is_what_was_asked_for(model, tmp_path, cache):
    half = write(model, tmp_path / "half", dtype=torch.bfloat16)
    exact = next(read(cache)).values[MLP]
    assert torch.equal(next(read(half)).values[MLP], exact.bfloat16().float())


def test_a_changed_file_is_noticed(cache):
    path = cache.folder / "buffer-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"buffer-00000\.safetensors is not what was written"):
        next(read(cache))


def test_another_model_site_or_shape_is_refused(cache):
    other = toy_with_tokenizer()
    with torch.no_grad():
        other.unembed.original_component.weight[0] += 1
    with pytest.raises(ValueError, match="holds activations of another model: model is 'toy'"):
        next(read(cache, model=other))
    with pytest.raises(ValueError, match=r"has no resid_post\.0: it holds embed, mlp_out\.0"):
        next(read(cache, [type(POST)("resid_post", 0)]))
    other = StreamConfig(**{**vars(CONFIG), "block_length": 16})
    with pytest.raises(ValueError, match="was written with block_length 8, not 16"):
        next(read(cache, config=other))


def test_a_folder_with_another_cache_is_not_added_to(model, cache):
    with pytest.raises(ValueError, match="is another cache: dtype is 'float32' there"):
        write(model, cache.folder, dtype=torch.bfloat16)


def test_a_text_that_ends_early(model, tmp_path):
    with pytest.raises(ValueError, match="the text gave 0 activations, but 160 were asked for"):
        write(model, tmp_path / "short", texts=["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no activation cache"),
        ("{", "is not JSON"),
        ("[]", "has no schema"),
        (json.dumps({"schema": "activation-cache/1"}), "lists no shards"),
    ],
)
def test_what_is_no_cache(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Cache.open(tmp_path)
