"""What a dictionary takes, from the headers of its files: that of the dictionary that is read."""

import pytest
import torch

from saes.formats.shapes import FLOAT32, header, shape_of
from saes.suite import find, load_suite
from tests.saes.published import CASES, D, write


def size(dictionary) -> int:
    return sum(b.numel() * b.element_size() for b in dictionary.buffers())


@pytest.mark.parametrize("name", CASES)
def test_the_size_of_a_dictionary_is_known_without_reading_it(name, tmp_path):
    folder, _ = write(name, tmp_path)
    found = find(folder)
    (entry,) = [e for e in found.entries if str(e.target) == CASES[name].target]
    loaded = found.load(entry)
    shape = shape_of(entry, D)
    assert (shape.source, shape.target) == (loaded.source, loaded.target)
    assert shape.features == loaded.n_features
    assert shape.stored == entry.fetch()[0].stat().st_size
    # A TopK of dictionary_learning has a threshold in its file that inference does not use.
    spare = FLOAT32 * shape.features if "TopK" in name and loaded.threshold is None else 0
    assert shape.bytes - size(loaded) in (0, spare)
    if shape.k is not None:
        assert shape.k == loaded.spec.k


def test_the_bundled_suite_is_known_to_the_byte():
    suite = load_suite("bundled")
    shapes = {s.name: s for s in (shape_of(e, 128) for e in find("bundled").entries)}
    assert shapes.keys() == set(suite)
    assert all(shapes[name].bytes == size(suite[name]) for name in suite)
    assert all(shapes[name].k == suite[name].spec.k for name in suite)


def test_a_dictionary_of_another_width_is_told_of():
    (entry, *_) = find("bundled").entries
    with pytest.raises(ValueError, match=r"holds \(.*, but the model is 96 wide"):
        shape_of(entry, 96)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz", "bin"])
def test_a_damaged_file_is_one_line(suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=rf"weights.{suffix} is n") as error:
        header(path)
    assert "\n" not in str(error.value)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"W_enc": test_code_in_a_checkpoint_does_not_run}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="is not readable"):
        header(tmp_path / "a.pt")
