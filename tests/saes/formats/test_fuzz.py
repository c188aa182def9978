"""Damaged and hostile files of every layout: read, or refused by name; nothing is ever run."""

import json
import random
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saes.suite import find
from tests.saes import published
from tests.saes.formats.audit import running_nothing
from tests.saes.published import CASES, ONE_OF_EACH

# What a pickle that runs a command on load looks like.
ATTACK = b"cposix\nsystem\n(S'touch ran'\ntR."


def load(folder):
    found = find(folder)
    return [found.load(entry) for entry in found.entries]


def complaint(folder):
    """What loading says is wrong; nothing where it loads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(folder)
    except ValueError as error:
        return str(error)
    return ""


def damaged(raw, rng):
    """One damaged copy: cut, doubled, bytes changed anywhere or in the head, a piece put in."""
    data = bytearray(raw)
    at = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            del data[at:]
        case 1:
            data[at:at] = data[rng.randrange(len(data)) :][:40]
        case 2:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        case 3:
            for _ in range(rng.randint(1, 40)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 4:
            del data[at : at + rng.randint(1, 200)]
        case _:
            data[at : at + len(ATTACK)] = ATTACK
    return bytes(data)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_damaged_files_are_read_or_refused_by_name_and_run_nothing(tmp_path, monkeypatch, name):
    folder, _ = published.write(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    load(folder)  # imports what loading imports
    refused, rng = 0, random.Random(1)
    files = [CASES[name].weights] * 3 + [CASES[name].config] * (CASES[name].config is not None)
    with running_nothing():
        for turn in range(240):
            file = folder / files[turn % len(files)]
            raw = file.read_bytes()
            file.write_bytes(damaged(raw, rng))
            said = complaint(folder)
            assert not said or str(file.parent) in said
            assert "\n" not in said
            refused += bool(said)
            file.write_bytes(raw)
    assert not (tmp_path / "ran").exists()
    assert refused > 80


def read_weights(file):
    if file.suffix == ".npz":
        return {k: torch.from_numpy(v) for k, v in np.load(file).items()}
    return torch.load(file) if file.suffix == ".pt" else load_file(file)


def write_weights(file, tensors):
    if file.suffix == ".npz":
        np.savez(file, **{k: v.numpy() for k, v in tensors.items()})
    elif file.suffix == ".pt":
        torch.save(tensors, file)
    else:
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)


def refuse(folder, file, match=None):
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_tensor_is_needed_in_its_shape_and_finite(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    file = folder / CASES[name].weights
    tensors = read_weights(file)
    optional = {"affine_skip_connection", "activation_function.threshold", "W_skip", "k"}
    for changed in tensors.keys() - {"k", "group_sizes", "threshold"} - optional:
        if not tensors[changed].dim():
            continue
        write_weights(file, {k: v for k, v in tensors.items() if k != changed})
        refuse(folder, file, changed)
        for wrong in (
            tensors[changed][:-1],
            tensors[changed][None],
            tensors[changed].reshape(-1)[:0],
            tensors[changed].long(),
            torch.full_like(tensors[changed], torch.nan),
            torch.full_like(tensors[changed], -torch.inf),
        ):
            write_weights(file, tensors | {changed: wrong})
            refuse(folder, file)
    write_weights(file, tensors | {"more": torch.zeros(3)})
    refuse(folder, file, "more")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_missing_file_is_named(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    found = find(folder)
    (folder / CASES[name].weights).unlink()
    with pytest.raises(ValueError, match="is missing") as error:
        found.load(found.entries[0])
    assert str(error.value).startswith(str(folder / CASES[name].weights))


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH if CASES[n].config])
@pytest.mark.parametrize("text", ["", "[", "[1]", "3", "a: [", '{"a":' * 5000, "\udcff", "&a [*a]"])
def test_a_configuration_that_is_none(tmp_path, name, text):
    folder, _ = published.write(name, tmp_path)
    file = folder / CASES[name].config
    file.write_bytes(text.encode(errors="surrogateescape"))
    refuse(folder, file)


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH if CASES[n].config])
def test_a_configuration_with_any_field_of_another_type(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    file = folder / CASES[name].config
    if file.suffix == ".yaml":
        return
    record = json.loads(file.read_text())
    for field in record:
        for wrong in ([], {}, "?", -1, 1e9, True, 10**40):
            file.write_text(json.dumps(record | {field: wrong}))
            said = complaint(folder)
            assert not said or str(file.parent) in said
