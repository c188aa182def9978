"""Activations on disk: the buffers of a stream, one file each, written once and read many times.

    CACHE/manifest.json                 what was read, by which model, and the files with their sums
    CACHE/buffer-00000.safetensors      {site: [tokens, d_model]}, tokens in the order of the text
    CACHE/held-out.safetensors          tokens int32 [blocks, pos] of text that is in no buffer, to
                                        judge on what was trained from the cache

A cache that was cut off is taken up where it stopped. Buffers are those of `stream.buffers`, so
training from a float32 cache sees the same batches as training from the model itself.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.files import write_atomically, write_text_atomically
from hooked_qwen.identity import identity
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch, StreamConfig, buffers, outliers_of
from hooked_qwen.tensor_files import read_tensors
from hooked_qwen.texts_read import Position, TextsRead
from hooked_qwen.transfer import to_host

SCHEMA = "activation-cache/1"
MANIFEST = "manifest.json"
HELD_OUT = "held-out.safetensors"
MODEL = ("model", "model_hash", "model_dtype")
"Fields that say which model it was, and in which precision it ran."
SHAPES = ("block_length", "blocks_per_pass", "buffer_size")
"Fields of the stream that decide what a buffer holds."


def write_cache(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Iterable[str],
    out: Path,
    *,
    config: StreamConfig,
    tokens: int,
    dtype: torch.dtype = torch.float32,
    held_out: Int[Tensor, "blocks pos"] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> "Cache":
    """Write at least `tokens` activations of each of `sites` to `out`, from where it stopped.

    `held_out` is kept beside them: tokens to judge on, which `texts` are without.

    Raises `ValueError` when `out` holds a cache of something else, other text among it, or the
    text ends too early.
    """
    about = {
        "schema": SCHEMA,
        **_about_model(model),
        "sites": sorted(map(str, sites)),
        "dtype": str(dtype).removeprefix("torch."),
        **{name: getattr(config, name) for name in SHAPES},
    }
    found = _written(out, about)
    shards, before = found.get("shards", []), found.get("read")
    if held_out is not None:
        about |= {"held_out": _write_held_out(out, held_out, found.get("held_out"))}
    elif "held_out" in found:
        about |= {"held_out": found["held_out"]}
    read = TextsRead(texts, before=Position(**before) if before else None)
    done = sum(shard["tokens"] for shard in shards)
    source = buffers(model, sites, read, config=config, start=len(shards))
    while done < tokens:
        report(done, tokens)
        buffer = next(source, None)
        if buffer is None:
            raise ValueError(f"the text gave {done} activations, but {tokens} were asked for")
        shards.append(_write_shard(out, len(shards), buffer, dtype))
        done += shards[-1]["tokens"]
        _write_manifest(out, about | {"read": asdict(read.position), "shards": shards})
    report(tokens, tokens)
    return Cache.open(out)


@dataclass(frozen=True)
class Cache:
    """A cache on disk."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Cache":
        """Raises `ValueError` naming the file when `folder` is no cache."""
        return cls(folder, _read_manifest(folder))

    @property
    def tokens(self) -> int:
        return sum(shard["tokens"] for shard in self.manifest["shards"])

    @property
    def hash(self) -> str:
        """First 16 hex digits of a SHA-256 of what its buffers hold, in their order."""
        sums = "".join(shard["sha256"] for shard in self.manifest["shards"])
        return sha256(sums.encode()).hexdigest()[:16]

    def held_out(self) -> Int[Tensor, "blocks pos"] | None:
        """Tokens of text that is in no buffer; None in caches that were written without.

        Raises `ValueError` when the file is not what was written.
        """
        about = self.manifest.get("held_out")
        return None if about is None else self._tensors(about)["tokens"].long()

    def buffers(
        self,
        sites: Sequence[Site],
        *,
        model: TransformerBridge,
        config: StreamConfig,
        start: int = 0,
    ) -> Iterator[ActivationBatch]:
        """Its buffers from number `start` on, again and again from the first after the last.

        They come to the device of `model`.

        Raises `ValueError` when the cache is of another model, lacks a site, was cut into other
        buffers than `config` asks for, or a file is not what was written.
        """
        self._check(sites, model, config)
        shards = self.manifest["shards"]
        while True:
            yield self._read(shards[start % len(shards)], sites, device_of(model))
            start += 1

    def _check(self, sites: Sequence[Site], model: TransformerBridge, config: StreamConfig) -> None:
        if differing := _of_another_model(self.manifest, _about_model(model)):
            raise ValueError(f"{self.folder} holds activations of another model: {differing}")
        if missing := {str(s) for s in sites} - set(self.manifest["sites"]):
            raise ValueError(
                f"{self.folder} has no {', '.join(sorted(missing))}: "
                f"it holds {', '.join(self.manifest['sites'])}"
            )
        for name in SHAPES:
            if self.manifest[name] != getattr(config, name):
                raise ValueError(
                    f"{self.folder} was written with {name} {self.manifest[name]}, "
                    f"not {getattr(config, name)}"
                )

    def _read(
        self, shard: dict[str, Any], sites: Sequence[Site], device: torch.device
    ) -> ActivationBatch:
        tensors = self._tensors(shard)
        values = {site: tensors[str(site)].to(device).float() for site in sites}
        return ActivationBatch(values, outliers_of(values))

    def _tensors(self, shard: Mapping[str, Any]) -> dict[str, Tensor]:
        path = self.folder / shard["file"]
        if not path.is_file() or _sum_of(path) != shard["sha256"]:
            raise ValueError(f"{path} is not what was written: remove {self.folder}, cache again")
        try:
            return read_tensors(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from None


def _written(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The manifest that `out` has already."""
    if not (out / MANIFEST).exists():
        return {}
    found = _read_manifest(out)
    if other := _of_another_model(found, about):
        raise ValueError(f"{out} holds activations of another model: {other}")
    differing = [n for n, v in about.items() if n not in MODEL and found.get(n) != v]
    if differing:
        told = "; ".join(f"{n} is {found.get(n)!r} there, {about[n]!r} here" for n in differing)
        raise ValueError(f"{out} is another cache: {told}")
    return found


def _write_held_out(
    out: Path, blocks: Int[Tensor, "blocks pos"], found: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Write the tokens to judge on, or raise where `found` says that others are there."""
    path = out / HELD_OUT
    tensors = {"tokens": blocks.int().contiguous()}
    tokens = sha256(tensors["tokens"].numpy().tobytes()).hexdigest()
    if found is not None and found["tokens"] != tokens:
        raise ValueError(
            f"{out} is a cache of another text: give the same text in the same order, or another "
            "folder"
        )
    write_atomically(path, lambda partial: save_file(tensors, partial))
    return {"file": path.name, "tokens": tokens, "sha256": _sum_of(path)}


def _about_model(model: TransformerBridge) -> dict[str, str]:
    precision = str(model.cfg.dtype).removeprefix("torch.")
    return dict(zip(MODEL, (model.cfg.model_name, identity(model), precision), strict=True))


def _of_another_model(found: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """What tells the two models apart, '' where nothing does.

    A name decides only where there is no hash: caches of earlier versions have none.
    """
    names = MODEL[1:] if MODEL[1] in found else MODEL[:1]
    differing = [name for name in names if found.get(name) != about[name]]
    # Two models of one name are told apart by their hashes alone, of two names by those as well.
    shown = [*MODEL[:1], *differing] if MODEL[1] in differing else differing
    return "; ".join(f"{n} is {found.get(n)!r} there, {about[n]!r} here" for n in shown)


def _write_shard(
    out: Path, number: int, buffer: ActivationBatch, dtype: torch.dtype
) -> dict[str, Any]:
    path = out / f"buffer-{number:05d}.safetensors"
    rounded = to_host([value.to(dtype) for value in buffer.values.values()])
    tensors = {str(s): v.contiguous() for s, v in zip(buffer.values, rounded, strict=True)}
    write_atomically(path, lambda partial: save_file(tensors, partial))
    tokens = len(next(iter(tensors.values())))
    return {"file": path.name, "tokens": tokens, "sha256": _sum_of(path)}


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1) + "\n"
    write_text_atomically(out / MANIFEST, text)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is no activation cache: it has no {MANIFEST}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ValueError(f"{path} has no schema {SCHEMA!r}")
    if not manifest.get("shards"):
        raise ValueError(f"{path} lists no shards")
    return manifest
