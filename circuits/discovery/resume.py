"""Work that was done batch by batch, kept beside an unfinished run so that it can go on.

    RUN/unfinished/identity.json            what the run is made from, by hash
    RUN/unfinished/effects-0003.safetensors     effects of the nodes of the fourth batch of prompts
    RUN/unfinished/gradients-0003.safetensors   its gradients, which the edges need
    RUN/unfinished/edges-0003.json          its edge weights

Numbers are kept to the last bit, so a run that went on ends in the same graph as one that was
never cut off. The folder is gone when the run is finished.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from circuits.attribution.effects import Gradients
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.spill import as_a_file_takes_them
from circuits.graph import EdgeWeights, Node, write_json
from hooked_qwen.files import write_atomically
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import read_tensors

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class DiscoveryParts:
    """The parts of a discovery that are done; without a folder nothing is kept."""

    folder: Path | None = None

    def effects(
        self, batch: int, find: Callable[[], tuple[NodeEffects, Gradients]]
    ) -> tuple[NodeEffects, Gradients]:
        """Effects of the nodes of a batch of prompts and its gradients: found, unless kept."""
        if self.folder is None:
            return find()
        path = self.folder / f"effects-{batch:04}.safetensors"
        tensors = self.folder / f"gradients-{batch:04}.safetensors"
        if path.exists():
            kept = read_tensors(tensors)
            return NodeEffects.load(path), {Site.parse(name): g for name, g in kept.items()}
        effects, found = find()
        gradients = {site: g.detach().contiguous() for site, g in found.items()}
        named = as_a_file_takes_them(gradients)
        write_atomically(tensors, lambda partial: save_file(named, partial))
        effects.save(path)
        return effects, gradients

    def edges(self, batch: int, find: Callable[[], EdgeWeights]) -> EdgeWeights:
        """Edge weights on a batch of prompts: found, unless kept."""
        if self.folder is None:
            return find()
        path = self.folder / f"edges-{batch:04}.json"
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            return {(Node.parse(source), Node.parse(end)): w for source, end, w in rows}
        weights = find()
        write_json([[str(source), str(end), w] for (source, end), w in weights.items()], path)
        return weights


NOTHING_KEPT = DiscoveryParts()


def _batches(folder: Path) -> str:
    return f"the first {len(list(folder.glob('effects-*.safetensors')))} batches"


def open_parts(
    run: Path,
    made_from: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
    holds: Callable[[Path], str] = _batches,
) -> DiscoveryParts:
    """The parts of the unfinished run in the folder `run`, for a run `made_from` this.

    `holds` says in words what is done of an unfinished run. Raises `ValueError` where others are
    there, and where some are that nobody asked to go on with: both unless by `force`, which throws
    them away.
    """
    folder = run / UNFINISHED
    known = folder / "identity.json"
    if folder.exists() and not (resume and known.exists() and _same(known, made_from)):
        if not force and known.exists():
            what = "another run" if resume or not _same(known, made_from) else "this run"
            way = "--resume goes on with it, " if what == "this run" else ""
            raise ValueError(
                f"{run} holds {holds(folder)} of {what}, which was cut off: {way}--force starts "
                "anew"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(dict(made_from), known)
    return DiscoveryParts(folder)


def close_parts(run: Path) -> None:
    """Take the parts away: the run is finished."""
    shutil.rmtree(run / UNFINISHED, ignore_errors=True)


def _same(known: Path, made_from: Mapping[str, Any]) -> bool:
    return json.loads(known.read_text(encoding="utf-8")) == json.loads(json.dumps(made_from))
