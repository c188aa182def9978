"""PyTorch files are read without running what is in them."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from hooked_qwen.sites import Site
from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place
from tests.saes import published
from tests.saes.formats.test_fuzz import refuse
from tests.saes.published import CASES

PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
SITE = {"files": "layer_{layer}.pt", "site": "resid_post.{layer}"}


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"W_enc": torch.nn.Linear(2, 2)}, tmp_path / "layer_1.pt")
    what = DictionaryMap(**SITE, tensors=PLAIN, k="5")
    with pytest.raises(ValueError, match="holds Python objects"):
        what.load(what.find(local_place(tmp_path))[0])
    (tmp_path / "weights.onnx").write_bytes(b"")
    other = replace(what, files="", sites={"weights.onnx": "embed"})
    with pytest.raises(ValueError, match=r"is no file of weights: expected one of \.pt"):
        other.load(other.find(local_place(tmp_path))[0])


@pytest.mark.parametrize("name", ["qwen-scope", "dictionary-learning"])
def test_objects_in_a_checkpoint_are_named_not_made(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    file = folder / CASES[name].weights
    torch.save({"W_enc": Site("mlp_out", 1)}, file)
    refuse(folder, file, r"holds Python objects \(hooked_qwen\.sites\.Site\)")


def test_a_checkpoint_from_before_zip_archives(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    file = folder / "layer1.sae.pt"
    torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    refuse(folder, file, "not a readable PyTorch file: no zip archive")


def test_an_archive_that_swells(tmp_path):
    folder, _ = published.write("gemma-scope", tmp_path)
    file = folder / CASES["gemma-scope"].weights
    np.savez_compressed(file, W_enc=np.zeros(10**6, np.float32))
    refuse(folder, file, "over 100 times its size")


def test_a_tensor_larger_than_its_file(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    file = folder / "layer1.sae.pt"
    torch.save(torch.load(file) | {"W_enc": torch.zeros(1).expand(10**9)}, file)
    refuse(folder, file, "W_enc is not a plain tensor that the file could hold")


def test_a_tensor_that_is_sparse(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    file = folder / "layer1.sae.pt"
    torch.save(torch.load(file) | {"b_enc": torch.eye(3).to_sparse()}, file)
    refuse(folder, file, "b_enc is not a plain tensor")


@pytest.mark.parametrize("content", [[1], {"W_enc": 3}, {3: torch.zeros(2)}, torch.zeros(3)])
def test_a_checkpoint_of_something_else(tmp_path, content):
    folder, _ = published.write("qwen-scope", tmp_path)
    torch.save(content, folder / "layer1.sae.pt")
    refuse(folder, folder / "layer1.sae.pt", "expected tensors by name")


class Attack:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("name", ["qwen-scope", "dictionary-learning"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_pickle_that_would_run_a_command(tmp_path, monkeypatch, name, bare):
    folder, _ = published.write(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    file = folder / CASES[name].weights
    if bare:
        file.write_bytes(pickle.dumps({"W_enc": Attack()}))
    else:
        torch.save({"W_enc": Attack()}, file)
    refuse(folder, file, "no zip archive" if bare else r"holds Python objects \(posix\.system\)")
    assert not (tmp_path / "ran").exists()
