"""Files that are whole or absent: written beside their place, then renamed into it."""

import os
import shutil
import tempfile
from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then move it into place.

    A process killed at any moment leaves either the old file, the new one, or none. The
    temporary name keeps `path`'s suffix: some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".partial-{path.stem}-", path.suffix
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def build_folder_atomically(path: Path, build: Callable[[Path], object]) -> None:
    """Call `build` on an empty folder beside `path`, then move it into place.

    An existing folder at `path` is replaced only once the new one is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".partial-{path.name}-"))
    try:
        partial.chmod(0o755)
        build(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def content_hash(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file, or of a folder's files by name and content.

    Hidden files do not count: they are what a killed process leaves behind.
    """
    digest = sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(path)
        if any(part.startswith(".") for part in name.parts):
            continue
        with file.open("rb") as stream:
            digest.update(name.as_posix().encode() + file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
