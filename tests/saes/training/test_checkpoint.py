"""Checkpoints: what is written comes back to the bit, or the one before it does."""

import json
import math
import os

import pytest
import torch

from hooked_qwen.files import PARTIAL
from hooked_qwen.texts_read import Position
from saes.training import checkpoint
from saes.training.checkpoint import Checkpointer, read_snapshot
from saes.training.loop import Snapshot

IDENTITY = {"width": 10, "sites": ["mlp_out.1"], "rate": 1e-3, "k": None}


def snapshot(step=7):
    """Tensors of every kind that training keeps, with values that rounding would lose."""
    generator = torch.Generator().manual_seed(step)
    odd = torch.tensor([math.inf, -math.inf, math.nan, -0.0, 5e-324, 1 / 3], dtype=torch.float64)
    return Snapshot(
        step,
        {
            "0/W_enc": torch.randn(4, 3, generator=generator),
            "0/odd": odd,
            "0/half": torch.randn(5, generator=generator).bfloat16(),
            "1/tokens_since_fired": torch.arange(step, step + 4),
            "1/fired": torch.tensor([True, False]),
            "1/none": torch.zeros(0, 3),
        },
    )


def to_bytes(taken):
    return {
        name: (value.dtype, value.shape, value.contiguous().view(torch.uint8).tolist())
        for name, value in taken.tensors.items()
    }


@pytest.mark.parametrize("position", [None, Position(12, "0123456789abcdef")], ids=["none", "some"])
def test_a_snapshot_comes_back_to_the_bit(tmp_path, position):
    path = tmp_path / "checkpoint.safetensors"
    Checkpointer(path, 0.0, IDENTITY, lambda: position)(snapshot)
    found, read = read_snapshot(path, IDENTITY)
    assert (found.step, read) == (7, position)
    assert to_bytes(found) == to_bytes(snapshot())
    assert set(found.of(1)) == {"tokens_since_fired", "fired", "none"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_write_that_is_cut_off_leaves_the_one_before(tmp_path, monkeypatch, error):
    """Half of the new file is on disk when writing ends."""
    path = tmp_path / "checkpoint.safetensors"
    keep = Checkpointer(path, 0.0, IDENTITY)
    keep(snapshot)
    before, whole = path.read_bytes(), checkpoint.save_file

    def cut(tensors, partial, metadata):
        whole(tensors, partial, metadata=metadata)
        os.truncate(partial, partial.stat().st_size // 2)
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "save_file", cut)
        with pytest.raises(type(error)):
            keep(lambda: snapshot(8))
    assert path.read_bytes() == before
    assert read_snapshot(path, IDENTITY)[0].step == 7
    assert list(tmp_path.iterdir()) == [path]
    keep(lambda: snapshot(9))
    assert read_snapshot(path, IDENTITY)[0].step == 9


def test_what_a_killed_process_left_is_swept_away_and_never_read(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    keep = Checkpointer(path, 0.0, IDENTITY)
    keep(snapshot)
    gone = 2**22 + 1  # more than Linux gives to any process
    left = tmp_path / f"{PARTIAL}{gone}-checkpoint.safetensors"
    left.write_bytes(path.read_bytes()[:40])
    assert read_snapshot(path, IDENTITY)[0].step == 7
    keep(lambda: snapshot(8))
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_taken_before_it_is_time(tmp_path):
    """A snapshot waits for the device: it is made only when it is written."""
    taken = []
    keep = Checkpointer(tmp_path / "checkpoint", 3600.0, IDENTITY)
    keep(lambda: taken.append(1) or snapshot())
    assert not taken
    assert not list(tmp_path.iterdir())
    keep.last -= 3600.0
    for _ in range(2):
        keep(lambda: taken.append(1) or snapshot())
    assert taken == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 11}, "width was 10, is 11"),
        ({"k": 3}, "k was None, is 3"),
        ({"sites": ["mlp_out.1", "mlp_out.2"], "rate": 1.0}, "sites was .* is .*; rate was 0.001"),
    ],
)
def test_another_run_is_told_what_differs(tmp_path, change, message):
    path = tmp_path / "checkpoint"
    Checkpointer(path, 0.0, IDENTITY)(snapshot)
    with pytest.raises(ValueError, match=f"is of another training run: {message}"):
        read_snapshot(path, IDENTITY | change)


def test_an_identity_is_compared_as_json_holds_it(tmp_path):
    """Tuples are lists there; what an earlier version did not record is not held against it."""
    path = tmp_path / "checkpoint"
    Checkpointer(path, 0.0, {"sites": ("a", "b")})(snapshot)
    assert read_snapshot(path, {"sites": ("a", "b"), "new": 1})[0].step == 7
    assert read_snapshot(path, {"sites": ["a", "b"]})[0].step == 7


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named(tmp_path, share):
    path = tmp_path / "checkpoint.safetensors"
    Checkpointer(path, 0.0, IDENTITY)(snapshot)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a readable checkpoint"):
        read_snapshot(path, IDENTITY)


def test_a_checkpoint_says_what_it_is_without_its_tensors(tmp_path):
    path = tmp_path / "checkpoint"
    Checkpointer(path, 0.0, IDENTITY, lambda: Position(3, "ab"))(snapshot)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = header["__metadata__"]
    assert about["step"] == "7"
    assert json.loads(about["identity"]) == IDENTITY
    assert json.loads(about["position"]) == {"texts": 3, "hash": "ab"}
