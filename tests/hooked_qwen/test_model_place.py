"""Where a model is: of a GGUF file, which is dequantised once, whole or not at all."""

import random

import gguf
import pytest
import torch
from transformers import AutoTokenizer

from hooked_qwen.identity import identity
from hooked_qwen.load import hook, load, load_config, load_tokenizer, weight_files
from hooked_qwen.model_place import local_folder, source_hash
from hooked_qwen.tokens import encode
from tests.toys import PIECES, VOCABULARY, toy_hf, toy_tokenizer

TOKENS = torch.randint(1, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT = "cab ab, Hello!\n"


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def refuse(source, match):
    """`load` raises ValueError, one line long."""
    with pytest.raises(ValueError, match=match) as error:
        load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_gguf(path, model):
    """The toy as llama.cpp would write it, in float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(list(PIECES))
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (VOCABULARY - 1))
    writer.add_token_merges(["a b"])
    for add in (writer.add_eos_token_id, writer.add_bos_token_id, writer.add_pad_token_id):
        add(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy_gguf(tmp_path):
    model = toy_hf("qwen2", torch.float32)
    write_gguf(tmp_path / "toy.gguf", model)
    return tmp_path / "toy.gguf", model


def files_under(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def written_under(folder):
    """Files, and when each was written to which place on disk."""
    stats = {path: path.stat() for path in files_under(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def test_a_gguf_file_gives_the_models_own_logits(toy_gguf, cache):
    path, reference = toy_gguf
    model = load(path)
    assert torch.equal(model(TOKENS), reference(TOKENS).logits)
    assert encode(model.tokenizer, TEXT) == encode(toy_tokenizer(), TEXT)
    assert model.tokenizer.eos_token_id == 0
    assert identity(model) == identity(hook(reference, name="any")), "the same weights"


def test_a_gguf_file_is_converted_once(toy_gguf, cache):
    path, _ = toy_gguf
    first = load(path)
    kept = written_under(cache)
    again = load(path)
    assert torch.equal(first(TOKENS), again(TOKENS))
    assert written_under(cache) == kept


def test_another_file_of_the_same_name_is_another_model(toy_gguf, cache):
    path, model = toy_gguf
    before = load(path)(TOKENS)
    model.lm_head.weight.neg_()
    write_gguf(path, model)
    assert torch.equal(load(path)(TOKENS), -before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_a_conversion_that_dies_half_way_leaves_nothing(toy_gguf, cache, monkeypatch, error):
    path, reference = toy_gguf

    def die(**_):
        assert files_under(cache), "the weights are written by now"
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(AutoTokenizer, "from_pretrained", die)
        with pytest.raises((KeyboardInterrupt, ValueError)):
            load(path)
    assert files_under(cache) == []
    assert torch.equal(load(path)(TOKENS), reference(TOKENS).logits)


@pytest.mark.parametrize("content", [b"", b"not a gguf file at all, but long enough to be one"])
def test_a_file_that_is_gguf_by_name_alone(tmp_path, cache, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    refuse(tmp_path / "bad.gguf", r"cannot read .*bad\.gguf as a GGUF model")
    assert files_under(cache) == []


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_a_gguf_file_cut_in_its_header(toy_gguf, cache, share):
    path, _ = toy_gguf
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refuse(path, "cannot read .* as a GGUF model")


def test_a_gguf_file_cut_in_its_tensors(toy_gguf, cache):
    path, _ = toy_gguf
    path.write_bytes(path.read_bytes()[:-1000])
    refuse(path, "cannot read .* as a GGUF model")
    assert files_under(cache) == []


def test_a_damaged_gguf_file_is_refused_by_its_name_or_loads(toy_gguf, cache):
    path, _ = toy_gguf
    whole, rng, refused = path.read_bytes(), random.Random(0), []
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[rng.randrange(2000)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert all(path.name in message for message in refused)


def test_a_gguf_file_tells_its_sizes_without_being_converted(toy_gguf, cache):
    path, model = toy_gguf
    config, tokenizer = load_config(path), load_tokenizer(path)
    assert not list(cache.rglob("*.safetensors"))
    assert weight_files(path) == []
    sizes = ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size")
    assert [getattr(config, s) for s in sizes] == [getattr(model.config, s) for s in sizes]
    converted = load(path)
    assert tokenizer.get_vocab() == converted.tokenizer.get_vocab()
    assert [p.suffix for p in weight_files(path)] == [".safetensors"]


def test_a_model_is_told_by_its_files_and_one_on_the_hub_by_its_name(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert local_folder("org/name") is None
    assert source_hash("org/name") == "org/name"
    before = source_hash(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert source_hash(tmp_path) != before
