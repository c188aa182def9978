"""Files that may be compressed, by gzip or zstd, read as if they were not."""

import gzip
import io
import zlib
from pathlib import Path
from typing import cast

COMPRESSED = (".gz", ".zst")
UNREADABLE = (OSError, EOFError, zlib.error)
"What reading a damaged file raises, by where the damage is."


def suffix_of(file: Path) -> str:
    """What the file is, whether compressed or not."""
    return Path(file.stem).suffix if file.suffix in COMPRESSED else file.suffix


def opened(file: Path) -> io.BufferedIOBase:
    """The file's bytes, decompressed while they are read."""
    if file.suffix == ".gz":
        return cast(io.BufferedIOBase, gzip.open(file))
    if file.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))
    return file.open("rb")


def content_of(file: Path) -> bytes:
    """All of the file; raises `ValueError` where it cannot be read."""
    try:
        with opened(file) as stream:
            return stream.read()
    except UNREADABLE as error:
        raise ValueError(f"cannot read {file}: {error}") from None
