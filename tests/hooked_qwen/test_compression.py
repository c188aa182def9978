"""Compressed files are read as if they were not, and damage is said in one line."""

import gzip
from pathlib import Path

import pyarrow
import pytest

from hooked_qwen.compression import content_of, opened, suffix_of

CONTENT = "".join(f"line {i * i} ñ\n" for i in range(200)).encode()
WRITERS = {
    "a.txt": lambda content: content,
    "a.txt.gz": gzip.compress,
    "a.txt.zst": lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_read_as_if_it_were_not_compressed(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(WRITERS[name](CONTENT))
    assert content_of(file) == CONTENT
    with opened(file) as stream:
        assert b"".join(stream) == CONTENT


def test_a_file_is_what_it_is_without_its_compression():
    names = ("a.csv", "a.csv.gz", "b.tar.zst", "plain", "a.gz")
    assert [suffix_of(Path(name)) for name in names] == [".csv", ".csv", ".tar", "", ""]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
@pytest.mark.parametrize("at", [0, 0.2, 0.5, 0.9])
def test_damage_anywhere_is_said_in_one_line(tmp_path, name, at):
    file = tmp_path / name
    content = WRITERS[name](CONTENT)
    whole = int(at * len(content))
    file.write_bytes(content[:whole] + b"\xff" * (len(content) - whole))
    with pytest.raises(ValueError, match=f"^cannot read {file}: ") as error:
        content_of(file)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*gone\.txt\.gz"):
        content_of(tmp_path / "gone.txt.gz")
