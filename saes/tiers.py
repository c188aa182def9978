"""Where the dictionaries of a suite are: ready on the device, on the host, or in files alone.

    device   in the precision that they compute in, up to `--memory`
    host     as their files store them, where the device is another, up to half of what is free
    files    all of them

One that is asked for comes from the first of these that has it. The device lets go of what was
not asked for the longest. The host keeps what came first: of a sweep over more than it holds, what
was asked for last would always be gone again.

Where the model is on the CPU there is no tier between: the system keeps files that it has read in
what memory is free, and gives that back to whoever needs it.
"""

from collections.abc import Callable

import psutil

from saes.dictionary import SparseDictionary
from saes.formats.place import Entry

HOST_SHARE = 0.5
"Of the host's free memory, when the first dictionary is kept there."


class OnDevice:
    """Dictionaries that are ready for use: up to `memory` GB, and the one asked for last."""

    def __init__(self, memory: float | None, beside: "OnDevice | None" = None) -> None:
        """Within the memory of those `beside`, where there is a limit."""
        self.memory = memory
        # As they are used, the one asked for last at the end; those beside are among them.
        self._ready: dict[tuple[object, str], SparseDictionary] = {}
        self._sizes: set[int] = {0}
        self._own = object()
        if beside is not None and memory is not None:
            self._ready, self._sizes = beside._ready, beside._sizes

    def get(self, name: str, make: Callable[[str], SparseDictionary]) -> SparseDictionary:
        """The dictionary of that name, made ready where it is not there."""
        key = self._own, name
        if self.memory is None:
            if key not in self._ready:
                self._ready[key] = make(name)
            return self._ready[key]
        found = self._ready.pop(key, None)
        if found is None:
            # Before it is made, as large as the largest so far: two are never there at once.
            self._make_room(max(self._sizes), self.memory)
            found = make(name)
            self._sizes.add(bytes_of(found))
        self._make_room(bytes_of(found), self.memory)
        self._ready[key] = found
        return found

    def __len__(self) -> int:
        return len(self._ready)

    def _make_room(self, size: int, memory: float) -> None:
        """Let go of what was not asked for the longest, until `size` bytes more fit into GB."""
        sizes = {key: bytes_of(dictionary) for key, dictionary in self._ready.items()}
        for key in list(sizes):
            if sum(sizes.values()) + size <= memory * 1e9:
                return
            del sizes[key], self._ready[key]


class OnHost:
    """Dictionaries of files, each as its file stores it, read by `read`.

    Those that came first are kept, up to `room` bytes; by default a share of what is free. They are
    tensors of their own, not the file's pages: layouts turn matrices and fold means into biases.
    """

    def __init__(self, read: Callable[[Entry], SparseDictionary], room: float | None = None):
        self.read, self._room = read, room
        self._kept: dict[str, SparseDictionary] = {}

    def get(self, name: str, entry: Entry) -> SparseDictionary:
        """The dictionary of that name, which an entry has the files of."""
        if name in self._kept:
            return self._kept[name]
        found = self.read(entry)
        if self._room is None:
            self._room = room_on_host()
        if bytes_of(found) <= self._room:
            self._room -= bytes_of(found)
            self._kept[name] = found
        return found


def room_on_host() -> float:
    """Bytes that dictionaries may take there."""
    return HOST_SHARE * psutil.virtual_memory().available


def bytes_of(dictionary: SparseDictionary) -> int:
    """What its tensors take."""
    return sum(buffer.numel() * buffer.element_size() for buffer in dictionary.buffers())
