"""Files that are damaged or hostile are refused by name, and no code in them is run."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from hooked_qwen.sites import Site
from saes.formats.reading import Config, check_tensors, field, read_any, read_config, read_weights
from tests.saes import published
from tests.saes.formats.test_fuzz import ATTACK, refuse
from tests.saes.published import CASES


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


@pytest.mark.parametrize("size", [2**62, 2**40, 90_000_000])
def test_a_safetensors_header_of_absurd_length(tmp_path, size):
    folder, _ = published.write("saelens", tmp_path)
    file = folder / CASES["saelens"].weights
    file.write_bytes(struct.pack("<Q", size) + file.read_bytes()[8:])
    refuse(folder, file, "not a readable safetensors file")


def npz(file, shape, dtype="<f4", data=b"", descr=None):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": descr or dtype, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("W_enc.npy", head.getvalue() + data)


@pytest.mark.parametrize("shape", [(10**6, 10**9), (2**62, 8), (3,)])
def test_an_array_that_is_not_as_long_as_it_claims(tmp_path, shape):
    folder, _ = published.write("gemma-scope", tmp_path)
    file = folder / CASES["gemma-scope"].weights
    npz(file, shape)
    refuse(folder, file, "W_enc.npy claims")


def test_an_array_of_objects(tmp_path):
    folder, _ = published.write("gemma-scope", tmp_path)
    file = folder / CASES["gemma-scope"].weights
    npz(file, (1,), descr="|O", data=ATTACK)
    refuse(folder, file, "claims .* of object")


def test_numbers_in_groups_are_called_by_their_path(tmp_path):
    file = tmp_path / "one.pt"
    torch.save({"state": {"W": torch.ones(2), "k": 3, "on": True, "note": "x"}}, file)
    found = read_any(file)
    assert {name: value.tolist() for name, value in found.items()} == {
        "state.W": [1, 1],
        "state.k": 3,
    }
    with pytest.raises(ValueError, match="expected tensors by name"):
        read_weights(file)


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_a_configuration_s_fields_are_of_their_kinds(tmp_path, name):
    (tmp_path / name).write_text('{"k": 5, "on": true, "site": "mlp_out.1", "none": null}')
    config = read_config(tmp_path / name)
    assert config.field("k", int) == 5
    assert config.field("none", int, 7) == 7
    assert str(config.site("site")) == "mlp_out.1"
    with pytest.raises(ValueError, match=rf"{name} has True for on, expected a whole number"):
        config.field("on", int)
    with pytest.raises(ValueError, match=rf"{name} has no field 'd': expected a text"):
        field(config.record, config.path, "d", str)


def test_what_a_field_means_where_it_is_not_there_is_the_first_of_its_values(tmp_path):
    said = {"none": "", "layer_norm": "each token by its own norm"}
    Config(tmp_path, {}).check(scale=said)
    with pytest.raises(ValueError, match="for scale: each token by its own norm; what is read"):
        Config(tmp_path, {"scale": "layer_norm"}).check(scale=said)
    with pytest.raises(ValueError, match=r"has 3 for scale: that is not known here; .* 'none'"):
        Config(tmp_path, {"scale": 3}).check(scale=said)


def test_a_letter_of_the_axes_has_one_size(tmp_path):
    w = {"W": torch.zeros(3, 2), "b": torch.zeros(3)}
    check_tensors(tmp_path, w, {"W": "md", "b": "m"}, {"c": "d"})
    wrong = {
        "lacks the tensors b": {"W": w["W"]},
        r"tensors that are not read here: more; expected W, b, c": w | {"more": w["b"]},
        r"b has shape \(2,\), expected \(3\)": w | {"b": torch.zeros(2)},
        r"W has shape \(3,\), expected \(m, d\)": w | {"W": torch.zeros(3)},
        "b is of type torch.int64, expected real numbers": w | {"b": torch.zeros(3).long()},
        "c holds numbers that are not finite": w | {"c": torch.full((2,), torch.inf)},
    }
    for match, tensors in wrong.items():
        with pytest.raises(ValueError, match=match):
            check_tensors(tmp_path, tensors, {"W": "md", "b": "m"}, {"c": "d"})
