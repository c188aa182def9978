"""Where dictionaries lie: a folder whose files are known by name and fetched when asked for.

A folder on this machine and a repository on the hub look the same from here, so every layout is
read one way, and of a suite on the hub only the files that are used are downloaded.
"""

import os
import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath

from hooked_qwen.sites import Ends, Site

DEPTH = 6
"Levels of folders that are searched; no published layout has more."


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder of files, here or on the hub."""

    label: str
    "how the user would name it: the folder's path, or hf:org/name@revision"
    name: str
    "its own name, without what lies above it"
    names: tuple[str, ...]
    "its files, relative, sorted, with '/' between folders; hidden ones do not count"
    fetch: Callable[[str], Path]
    "the local path of a file, downloaded first where it is not here"

    def folders_with(self, *files: str) -> list[str]:
        """Folders that hold a file of each of these names; '' is the place itself."""
        known = set(self.names)
        folders = [str(PurePosixPath(n).parent) for n in self.names if _own_name(n) == files[0]]
        found = ["" if folder == "." else folder for folder in folders]
        return [folder for folder in found if all(inside(folder, f) in known for f in files)]

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file in hexadecimal digits, fetched where it is not here."""
        return _digest_of(self.fetch(name)).hex()

    def name_of(self, folder: str) -> str:
        """A folder's own name; the place's where the folder is the place itself."""
        return _own_name(folder) if folder else self.name


@dataclass(frozen=True, kw_only=True)
class Entry(Ends):
    """One dictionary that was found: where it reads and writes, and its files, not yet read."""

    name: str
    "its folder, or its file where it has no folder of its own"
    place: Place
    files: tuple[str, ...]
    "its weights first"

    def fetch(self) -> list[Path]:
        """The local paths of its files, downloaded where they are not here."""
        return [self.place.fetch(file) for file in self.files]

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of its files by name and content.

        The same as `hooked_qwen.files.content_hash` of a folder that holds nothing else.
        """
        folder, digest = PurePosixPath(self.files[0]).parent, sha256()
        for file, path in sorted(zip(self.files, self.fetch(), strict=True)):
            name = posixpath.relpath(file, str(folder))
            digest.update(name.encode() + _digest_of(path))
        return digest.hexdigest()[:16]


def entry_of(place: Place, ends: tuple[Site, Site], *files: str, name: str = "") -> Entry:
    """A dictionary from one site to another, called after its weights where it has no name."""
    source, target = ends
    return Entry(source=source, target=target, name=name or files[0], place=place, files=files)


def hashes(entries: Sequence[Entry]) -> list[str]:
    """The hash of each, by all processors: reading and hashing let other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(Entry.hash, entries))


def _digest_of(path: Path) -> bytes:
    about = path.stat()
    return _digest(path, about.st_size, about.st_mtime_ns)


@cache
def _digest(path: Path, size: int, changed: int) -> bytes:
    """The SHA-256 of a file of this size, changed at this time; it is read for it once."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").digest()


def inside(folder: str, file: str) -> str:
    """The name of `file` in `folder`, '' being the place itself."""
    return f"{folder}/{file}" if folder else file


def local_place(folder: Path) -> Place:
    """A folder on this machine."""
    root = folder.resolve()
    return Place(label=str(root), name=root.name, names=_files(root), fetch=folder.joinpath)


def _own_name(name: str) -> str:
    return PurePosixPath(name).name


def _files(root: Path) -> tuple[str, ...]:
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        if len(here.parts) >= DEPTH:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(here / name).as_posix() for name in files if not name.startswith(".")]
    return tuple(sorted(found))
