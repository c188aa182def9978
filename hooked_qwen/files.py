"""Files that are whole or absent: written beside their place, then renamed into it."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import file_digest, sha256
from pathlib import Path

import psutil

PARTIAL = ".partial-"
WAITS = (0.05, 0.2, 1.0)
"Seconds between attempts to rename a file that another process has open."


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then move it into place.

    A process killed at any moment leaves either the old file, the new one, or none; what it left
    half-written is hidden, and gone with the next write. The temporary name keeps `path`'s
    suffix: some writers choose their format by it.
    """
    partial = _place_beside(path)
    try:
        write(partial)
        _permit([partial])
        _move(partial, path)
    except OSError as error:
        _name_target(error, partial, path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` of a text in UTF-8."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def build_folder_atomically(path: Path, build: Callable[[Path], object]) -> None:
    """Call `build` on an empty folder beside `path`, then move it into place.

    An existing folder at `path` is replaced only once the new one is complete.
    """
    partial = _place_beside(path)
    old = partial.with_name(f"{partial.name}-old")
    partial.mkdir()
    try:
        build(partial)
        _permit([each for each in partial.rglob("*") if each.is_file()])
        if path.exists():
            _move(path, old)
        _move(partial, path)
    except BaseException as error:
        if old.exists() and not path.exists():
            _move(old, path)
        if isinstance(error, OSError):
            _name_target(error, partial, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_not_file(folder: Path) -> None:
    """Raise `ValueError` where a file stands at the place of a folder that is to be written."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder")


def check_new_folder(folder: Path) -> None:
    """Raise `ValueError` where there is anything but an empty folder."""
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new folder")


def _name_target(error: OSError, partial: Path, path: Path) -> None:
    """Let the error tell of `path`, which is what the user knows of."""
    for name in ("filename", "filename2"):
        told = getattr(error, name)
        if told is not None:
            setattr(error, name, str(told).replace(str(partial), str(path)))


def _permit(files: Sequence[Path]) -> None:
    """Let those read the files who may read any that are made here.

    safetensors makes its own such that their owner alone may.
    """
    if not files:
        return
    probe = files[0].with_name(f"{files[0].name}-mode")
    probe.touch()
    usual = probe.stat().st_mode
    probe.unlink()
    for file in files:
        mode = file.stat().st_mode
        if mode | usual != mode:
            file.chmod(mode | usual)


def _move(source: Path, target: Path) -> None:
    """Rename, over what is there; on Windows wait for whoever looks into it, such as a scanner."""
    for wait in WAITS if sys.platform == "win32" else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    source.replace(target)


def _place_beside(path: Path) -> Path:
    """A hidden name beside `path` for this process; those of dead processes are swept away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    for left in path.parent.glob(f"{PARTIAL}*"):
        owner = left.name.removeprefix(PARTIAL).partition("-")[0]
        if left == own or (owner.isdecimal() and not psutil.pid_exists(int(owner))):
            _remove(left)
    return own


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
