"""Where a tensor starts in a file changes nothing that is computed with it."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hooked_qwen import bundled
from hooked_qwen.load import load
from hooked_qwen.tensor_files import aligned, read_tensors
from tests.hooked_qwen.unaligned import OFFSETS, is_aligned, shift
from tests.toys import toy_hf, toy_tokenizer

TENSORS = {
    "odd": torch.arange(3.0),
    "matrix": torch.randn(24, 24, generator=torch.Generator().manual_seed(0)),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "number": torch.tensor(2.0, dtype=torch.float64),
    "whole": torch.tensor([[3, -1]]),
    "mask": torch.tensor([True, False, True]),
}


@pytest.mark.parametrize("by", OFFSETS)
def test_tensors_are_aligned_wherever_they_start_in_the_file(tmp_path, by):
    path = tmp_path / "some.safetensors"
    save_file(TENSORS, path)
    shift(path, by)
    found = read_tensors(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, TENSORS[name])
        assert not tensor.numel() or is_aligned(tensor), name


def test_a_tensor_that_lies_as_a_new_one_is_not_copied():
    stacked = torch.zeros(3, 16, 4)
    assert aligned(stacked[1]).data_ptr() == stacked[1].data_ptr()
    shifted = torch.zeros(65)[1:]
    assert aligned(shifted).data_ptr() != shifted.data_ptr()
    assert is_aligned(aligned(torch.zeros(5, 7)[2]))
    assert is_aligned(aligned(torch.zeros(5, 7).T))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_models_weights_are_aligned_and_its_logits_those_of_any_file(tmp_path, dtype):
    toy_hf("qwen3", dtype).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    tokens, logits = torch.arange(1, 9)[None], []
    for by in (4, 36, 64):
        shift(tmp_path / "model.safetensors", by)
        model = load(tmp_path, dtype=dtype)
        assert all(map(is_aligned, model.parameters()))
        with torch.no_grad():
            logits.append(model(tokens))
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[1], logits[2])


def test_nothing_else_reads_weights():
    """Every read goes through the one that aligns."""
    packages = ("hooked_qwen", "saes", "transcoders", "circuits")
    root = Path(bundled.__file__).parents[2]
    readers = ("load_file(", ".get_tensor(", "torch.load(", "np.load(")
    found = {
        f"{path.relative_to(root).as_posix()} {reader}"
        for package in packages
        for path in (root / package).rglob("*.py")
        for reader in readers
        if reader in path.read_text(encoding="utf-8")
    }
    assert found == {
        # Written into a baked model's folder, for people who have no package of ours.
        "circuits/edits/loader.py load_file(",
        "hooked_qwen/tensor_files.py np.load(",
        "saes/formats/reading.py torch.load(",
        # Mapped: shapes, no weights.
        "saes/formats/shapes.py torch.load(",
    }


def test_a_file_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        read_tensors(tmp_path / "nowhere")
    path = tmp_path / "cut.safetensors"
    save_file(TENSORS, path)
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(SafetensorError, match=r"(?i)header|incomplete"):
        read_tensors(path)
