"""Gradients of every batch of prompts, in memory as far as they fit and else on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import read_tensors
from hooked_qwen.transfer import to_host

PerSite = Mapping[Site, Tensor]


def as_a_file_takes_them(item: PerSite) -> dict[str, Tensor]:
    """Tensors on the host, by the names of their sites, each in memory of its own.

    Those of two sites may be one tensor, which a file does not take twice.
    """
    on_host = to_host([tensor.detach().contiguous() for tensor in item.values()])
    return {str(site): tensor.clone() for site, tensor in zip(item, on_host, strict=True)}


class Spill(Sequence[PerSite]):
    """Tensors by site, batch after batch; those beyond `keep` bytes are files until asked for."""

    def __init__(self, *, keep: float) -> None:
        self._room = keep
        self._items: list[PerSite | Path] = []
        self._folder: TemporaryDirectory[str] | None = None
        self._device = torch.device("cpu")

    def append(self, item: PerSite) -> None:
        """Keep the tensors of one more batch."""
        item = {site: tensor.detach() for site, tensor in item.items()}
        size = sum(tensor.nbytes for tensor in item.values())
        # The first stays whatever it takes: most prompt sets are one batch.
        if size <= self._room or not self._items:
            self._room -= size
            self._items.append(item)
            return
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="qwen-circuits-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / f"{len(self._items):05}.safetensors"
        self._device = next(iter(item.values())).device
        save_file(as_a_file_takes_them(item), path)
        self._items.append(path)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, at: int) -> PerSite:
        item = self._items[at]
        if not isinstance(item, Path):
            return item
        found = read_tensors(item)
        return {Site.parse(name): tensor.to(self._device) for name, tensor in found.items()}
