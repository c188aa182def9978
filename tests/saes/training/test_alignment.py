"""In memory and from disk the same bytes: dictionaries, caches and checkpoints."""

from hashlib import sha256

import pytest
import torch

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.sae import sae
from saes.suite import load_suite
from saes.training.checkpoint import Checkpointer, read_snapshot
from saes.training.loop import TrainConfig, fit
from tests.hooked_qwen.test_shards import write
from tests.hooked_qwen.test_stream import CONFIG, SITES, toy_with_tokenizer
from tests.hooked_qwen.unaligned import OFFSETS, is_aligned, shift
from tests.saes import published
from tests.saes.published import CASES, D, draw
from tests.saes.training.test_loop import OUT, SAE, TRANSCODER, planted
from tests.toys import random_dictionary

SPEC = DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=4)


def results(dictionary, x):
    return [t.numpy().tobytes() for t in (dictionary.encode(x).dense(), dictionary(x))]


def only(folder):
    (dictionary,) = load_suite(folder).values()
    return dictionary


@pytest.mark.parametrize("name", CASES)
def test_a_dictionary_gives_the_same_bytes_wherever_its_file_starts(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    x = draw(64, D, seed=1)
    before = results(only(folder), x)
    assert all(map(is_aligned, only(folder).buffers()))
    for by in OFFSETS:
        for file in folder.rglob("*.safetensors"):
            shift(file, by)
        shifted = only(folder)
        assert all(map(is_aligned, shifted.buffers()))
        assert results(shifted, x) == before


def test_a_dictionary_of_rows_of_stacked_tensors_is_that_of_the_rows():
    one = random_dictionary(SPEC, dtype=torch.float32)
    rows = {}
    for name, value in one.state_dict().items():
        stacked = torch.cat([torch.zeros(1), value.flatten()])
        rows[name] = stacked[1:].view(value.shape)
    assert not any(map(is_aligned, rows.values()))
    cut = SparseDictionary(SPEC, rows)
    assert all(map(is_aligned, cut.buffers()))
    assert results(cut, draw(64, D, seed=1)) == results(one, draw(64, D, seed=1))


def test_a_cache_gives_the_same_batches_wherever_its_files_start(tmp_path):
    model = toy_with_tokenizer()
    cache = write(model, tmp_path / "cache")

    def first():
        return next(cache.buffers(SITES, model=model, config=CONFIG)).values

    before = first()
    for by in OFFSETS:
        for shard in cache.manifest["shards"]:
            file = tmp_path / "cache" / shard["file"]
            shift(file, by)
            shard["sha256"] = sha256(file.read_bytes()).hexdigest()
        for site, value in first().items():
            assert is_aligned(value)
            assert torch.equal(value, before[site])


def test_training_goes_on_the_same_wherever_its_checkpoint_starts(tmp_path):
    specs = [SAE, TRANSCODER, sae(OUT, k=3, architecture="gated")]
    config = TrainConfig(width=20, tokens=32 * 16, average=0.5)
    path = tmp_path / "checkpoint.safetensors"
    kept = []
    keep = Checkpointer(path, 0.0, {})
    whole = fit(
        planted(16),
        specs,
        config=config,
        keep=lambda taken: kept.append(taken()) or (len(kept) == 1 and keep(lambda: kept[0])),
    )
    expected = [t.dictionary.state_dict() for t in whole]
    for by in OFFSETS:
        shift(path, by)
        after, _ = read_snapshot(path, {})
        assert all(map(is_aligned, after.tensors.values()))
        rest = list(planted(16))[after.step :]
        for found, wanted in zip(
            fit(rest, specs, config=config, after=after), expected, strict=True
        ):
            for name, value in found.dictionary.state_dict().items():
                assert value.numpy().tobytes() == wanted[name].numpy().tobytes(), (by, name)
