"""A folder with examples of every feature of a suite, made once and shared by cards and pages.

    STORE/manifest.json           what it was made from; comes last, so a store with one is whole
    STORE/tokens.safetensors      tokens int32 [blocks, pos]: the text, once
    STORE/mlp_out.3.safetensors   fired int64 [features], and for top and sampled passages
                                  row int32, position int16, activation and scale float32,
                                  window int8 [.., shown]: 47 bytes a passage; counts int32
                                  [features, steps], histograms of activations, without steps at
                                  either end that no feature has, and counts_first, how many are
                                  left out at the lower one (stores of earlier versions have none)
    STORE/progress.safetensors    while it is being made: everything up to the last checkpoint

The same model, dictionaries, text and configuration give the same files, byte for byte, whether
or not the work was interrupted.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.config_checks import check_at_least
from hooked_qwen.files import write_atomically, write_text_atomically
from hooked_qwen.identity import identity
from hooked_qwen.tensor_files import read_tensors
from hooked_qwen.tokens import Batch, first_blocks
from hooked_qwen.transfer import to_host
from saes.dictionary import SparseDictionary
from saes.examples.collect import Examples, Passages, Tally, collect_examples
from saes.examples.histogram import Counts, no_counts
from saes.on_demand import InTurn, each, fitting

SCHEMA = "feature-examples/1"
MANIFEST = "manifest.json"
TOKENS = "tokens.safetensors"
PROGRESS = "progress.safetensors"
CHECKPOINT_BLOCKS = 256
LISTS = ("top", "sampled")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How much text is looked at, and how many passages of each feature are kept."""

    tokens: int = 262_144
    block_length: int = 128
    "tokens of running text that the model sees at once"
    blocks_per_pass: int = 16
    "blocks in one forward pass"
    top: int = 12
    "strongest passages kept of each feature"
    sampled: int = 4
    "further passages drawn from all positions where the feature is active"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "block_length", "blocks_per_pass", "top")
        if self.sampled < 0:
            raise ValueError(f"sampled is {self.sampled}: expected 0 or more")
        if self.block_length > torch.iinfo(torch.int16).max:
            raise ValueError(f"block_length is {self.block_length}: expected at most 32767")
        if self.tokens < self.block_length:
            raise ValueError(
                f"cannot look at {self.tokens} tokens: at least one block of "
                f"{self.block_length} is needed"
            )


@dataclass(frozen=True)
class Store:
    """A finished store, opened; a dictionary's examples are read when they are asked for."""

    folder: Path
    manifest: Mapping[str, Any]
    blocks: Int[Tensor, "blocks pos"]

    def examples(self, dictionary: SparseDictionary) -> Examples:
        """The examples of `dictionary`; raises `ValueError` when they are of another one."""
        name = dictionary.spec.name
        known = self.manifest["dictionaries"]
        if name not in known:
            raise ValueError(
                f"{self.folder} has no examples of {name}: it has {', '.join(sorted(known))}"
            )
        if known[name]["hash"] != fingerprint(dictionary):
            raise ValueError(
                f"the examples in {self.folder} are of another {name}: make them again in an "
                "empty folder"
            )
        tensors = _load(self.folder / f"{name}.safetensors")
        parts = [field.name for field in fields(Passages)]
        top, sampled = (Passages(**{p: tensors[f"{kind}.{p}"] for p in parts}) for kind in LISTS)
        counts = _whole(tensors) if "counts" in tensors else None
        tokens = self.blocks.numel()
        return Examples(tokens, tensors["fired"], top, sampled, self.blocks, counts=counts)


def open_store(folder: Path) -> Store:
    """Open a finished store; raises `ValueError` when there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no finished examples: {MANIFEST} is missing") from None
    except ValueError as error:
        raise ValueError(f"{folder / MANIFEST} is not JSON ({error})") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{folder / MANIFEST} has schema {schema!r}, expected {SCHEMA!r}")
    return Store(folder, manifest, _load(folder / TOKENS)["tokens"].long())


def build_store(
    model: TransformerBridge,
    dictionaries: InTurn,
    texts: Iterable[str],
    out: Path,
    *,
    config: StoreConfig,
    checkpoint_blocks: int = CHECKPOINT_BLOCKS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Store:
    """Find examples of every feature in the first `config.tokens` tokens of `texts`, into `out`.

    Work that was cut short goes on from its last checkpoint; a finished store is opened as it
    is. `report` is called with the blocks done and the blocks there are.

    Raises `ValueError` for too little text, two dictionaries of one name, and when `out` holds
    examples of something else.
    """
    tokens = first_blocks(texts, model.tokenizer, tokens=config.tokens, length=config.block_length)
    manifest = _manifest(model, dictionaries, tokens, config)
    if (out / MANIFEST).exists():
        store = open_store(out)
        if store.manifest != manifest:
            raise _other(out, store.manifest, manifest)
        return store
    used = fitting(dictionaries, model)
    tallies = {
        name: Tally(partial(used.__getitem__, i), top=config.top, sampled=config.sampled)
        for i, name in enumerate(manifest["dictionaries"])
    }
    done = _resume(out, tallies, manifest)
    _read_on(model, tallies, tokens, done, out, manifest, checkpoint_blocks, report)
    _finish(out, tallies, tokens, manifest)
    return open_store(out)


def _read_on(
    model: TransformerBridge,
    tallies: Mapping[str, Tally],
    tokens: Int[Tensor, "blocks pos"],
    done: int,
    out: Path,
    manifest: Mapping[str, Any],
    checkpoint_blocks: int,
    report: Callable[[int, int], None],
) -> None:
    sampling_keys = _sampling_keys(tokens, manifest["config"]["seed"])
    saved = done
    size = manifest["config"]["blocks_per_pass"]
    for start in range(done, len(tokens), size):
        part = tokens[start : start + size]
        batch = Batch(tokens=part, mask=torch.ones_like(part, dtype=torch.bool))
        collect_examples(
            model, list(tallies.values()), batch, sampling_keys[start : start + size], first=start
        )
        now = start + len(part)
        if now - saved >= checkpoint_blocks and now < len(tokens):
            _checkpoint(out, tallies, manifest, now)
            saved = now
        report(now, len(tokens))


def _sampling_keys(tokens: Tensor, seed: int) -> Float[Tensor, "blocks pos"]:
    """A random number for every position of the text, the same wherever the work begins."""
    return torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed))


def _manifest(
    model: TransformerBridge,
    dictionaries: InTurn,
    tokens: Int[Tensor, "blocks pos"],
    config: StoreConfig,
) -> dict[str, Any]:
    """All that a store depends on."""
    names = each(dictionaries, lambda d: d.spec.name)
    if not names:
        raise ValueError("there are no dictionaries to find examples for")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two dictionaries are called {', '.join(twice)}: give one of each name")
    return {
        "schema": SCHEMA,
        "model": {"name": model.cfg.model_name, "hash": identity(model)},
        "dictionaries": dict(
            zip(
                names,
                each(dictionaries, lambda d: {"features": d.n_features, "hash": fingerprint(d)}),
                strict=True,
            )
        ),
        "text": {
            "blocks": len(tokens),
            "tokens": tokens.numel(),
            "hash": sha256(tokens.numpy().tobytes()).hexdigest()[:16],
        },
        "config": asdict(config),
    }


def fingerprint(dictionary: SparseDictionary) -> str:
    """First 16 hex digits of the SHA-256 of what a dictionary is and of its tensors, by name."""
    digest = sha256(repr(dictionary.spec).encode())
    tensors = dict(chain(dictionary.named_parameters(), dictionary.named_buffers()))
    for name, tensor in zip(tensors, to_host(list(tensors.values())), strict=True):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _resume(out: Path, tallies: Mapping[str, Tally], manifest: Mapping[str, Any]) -> int:
    """Put the tallies where the last checkpoint left them; the blocks done by then."""
    path = out / PROGRESS
    if not path.exists():
        return 0
    state = _load(path)
    about = json.loads(bytes(state["about"].tolist()))
    if about["manifest"] != manifest:
        raise _other(out, about["manifest"], manifest)
    if any(f"{name}/counts" not in state for name in tallies):
        raise ValueError(
            f"{path} was left by an earlier version, without histograms: remove it to begin again"
        )
    for name, tally in tallies.items():
        own = {k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")}
        tally.restore(own)
    return about["blocks"]


def _checkpoint(
    out: Path, tallies: Mapping[str, Tally], manifest: Mapping[str, Any], done: int
) -> None:
    state = {f"{name}/{k}": v for name, t in tallies.items() for k, v in t.state().items()}
    about = json.dumps({"blocks": done, "manifest": manifest}).encode()
    _save(state | {"about": torch.tensor(list(about), dtype=torch.uint8)}, out / PROGRESS)


def _finish(
    out: Path, tallies: Mapping[str, Tally], tokens: Tensor, manifest: Mapping[str, Any]
) -> None:
    _save({"tokens": tokens.int()}, out / TOKENS)
    for name, tally in tallies.items():
        found = tally.examples(tokens)
        lists = {"top": found.top, "sampled": found.sampled}
        flat = {f"{kind}.{k}": v for kind, p in lists.items() for k, v in vars(p).items()}
        assert found.counts is not None
        _save({"fired": found.fired} | flat | _trimmed(found.counts), out / f"{name}.safetensors")
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    write_text_atomically(out / MANIFEST, text)
    (out / PROGRESS).unlink(missing_ok=True)


def _trimmed(counts: Counts) -> dict[str, Tensor]:
    seen = counts.any(0).nonzero()[:, 0].tolist() or [0]
    return {"counts": counts[:, seen[0] : seen[-1] + 1], "counts_first": torch.tensor(seen[0])}


def _whole(tensors: Mapping[str, Tensor]) -> Counts:
    kept, first = tensors["counts"], int(tensors["counts_first"])
    counts = no_counts(len(kept), kept.device)
    counts[:, first : first + kept.shape[1]] = kept
    return counts


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    whole = {k: v.contiguous() for k, v in tensors.items()}
    write_atomically(path, lambda partial: save_file(whole, partial))


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): make the store again") from None


def _other(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> ValueError:
    differs = ", ".join(k for k in wanted if found.get(k) != wanted[k])
    return ValueError(
        f"{out} holds examples made from something else (other {differs}): choose another folder, "
        "or remove it first"
    )
