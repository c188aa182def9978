"""What dictionaries and trainings say of themselves, and of what is wrong with them."""

import errno

import pytest
import torch

from hooked_qwen.files import build_folder_atomically, write_atomically
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import load_suite
from tests.toys import random_dictionary, toy_suite

SPEC = DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=4)


def test_a_suite_takes_sites_as_they_are_written():
    suite = toy_suite("mlp_out.1", "resid_post.1")
    assert suite["resid_post.1"] is suite[Site("resid_post", 1)]
    assert "mlp_out.1" in suite
    assert "mlp_out.0" not in suite
    assert "what" not in suite
    for absent in ("mlp_out.0", Site("mlp_out", 0)):
        with pytest.raises(KeyError, match="no dictionary writes mlp_out.0; .* mlp_out.1, resid"):
            suite[absent]


def test_what_a_dictionary_and_a_suite_are_is_told_in_a_line():
    one = repr(random_dictionary(SPEC, width=20, dtype=torch.float32))
    assert one == (
        "SparseDictionary(topk, k = 4, 20 features, mlp_out.1 -> mlp_out.1, float32 on cpu)"
    )
    assert repr(toy_suite("mlp_out.1")) == "Suite: 1 dictionary (memory): mlp_out 1"


@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
def test_a_transposed_matrix_is_called_so(name):
    weights = dict(random_dictionary(SPEC, width=20).state_dict())
    with pytest.raises(ValueError, match=rf"{name} has shape \(24, 20\): it is transposed"):
        SparseDictionary(SPEC, weights | {name: weights[name].T})


def test_an_unfinished_training_is_called_so(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    (tmp_path / "training.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="not finished: the same .* with --resume goes on"):
        load_suite(tmp_path)


@pytest.mark.parametrize("put", [write_atomically, build_folder_atomically])
def test_an_error_names_the_file_that_was_asked_for(tmp_path, put):
    def fail(partial):
        raise OSError(errno.ENOSPC, "No space left on device", str(partial))

    with pytest.raises(OSError, match="No space left") as error:
        put(tmp_path / "out", fail)
    assert ".partial-" not in str(error.value)
    assert str(tmp_path / "out") in str(error.value)
