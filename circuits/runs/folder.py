"""The run folder: what a command wrote, and enough to open it again and go on.

RUN/graph.json           the graph (circuits.graph)
RUN/graph.html           the page
RUN/ranking.json         mean effect of every changed node, strongest first
RUN/cards.json           what each feature of the graph is about
RUN/heads.json           of a replacement graph, where its heads look and why
RUN/manifest.json        command, versions, seed, paths, hashes, wall time, peak memory
RUN/prompts.jsonl        the prompt, where it was given on the command line
RUN/verification.json    once verified
RUN/ablations/NAME/      result.json, and the graph under that ablation with its page
RUN/edited/NAME/         a graph that a person edited, and its verification.json
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from circuits import graph as graphs
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import Discovery
from circuits.features.card import Cards
from circuits.graph import write_json
from circuits.metrics.readout import (
    keep_readout,
)
from circuits.prompts import (
    Prompt,
    write_prompts,
)
from circuits.render.exporters import Drawn
from circuits.render.interventions import intervention_of
from circuits.render.pages.circuit.page import page
from circuits.render.pages.heading import title_of
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import ABLATIONS, EDITED, RUN, RUN_FILES, VIEWERS
from circuits.runs.pages import (
    cards_beside,
    links_of,
    links_of_left,
    named_graph,
    read_from_run,
    run_of,
)
from circuits.runs.ranking_file import RANKING, write_ranking
from circuits.runs.stopwatch import Stopwatch
from hooked_qwen.files import write_text_atomically
from hooked_qwen.placement import ANYWHERE, Placement

HEADS = "heads.json"
PACKAGES = ("qwen-circuits", "torch", "transformers", "transformer-lens", "networkx", "safetensors")


def write_run(
    folder: Path,
    discovery: Discovery,
    cards: Cards,
    *,
    inputs: Inputs,
    config: DiscoverConfig,
    command: Sequence[str],
    watch: Stopwatch,
    placement: Placement,
    seed: int = 0,
    text: Sequence[str] = (),
    given: Sequence[Prompt] | None = None,
    heads: Mapping[str, Any] | None = None,
) -> None:
    """Write a discovery as a run folder; the manifest comes last, so a run with one is whole.

    A run that was there is replaced, with its verification, ablations and figures: they were
    another graph's. `circuits.runs.overwrite.check_run` says first whether that may be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_run(folder)
    if given is not None:
        write_prompts(given, Path(inputs.prompts))
    graphs.save(discovery.graph, folder / "graph.json")
    write_ranking(discovery.ranking, folder / RANKING)
    write_json(cards, folder / "cards.json")
    if heads is not None:
        write_json(heads, folder / HEADS)
    write_page(folder)
    keep_readout(config.metric, folder)
    manifest = {
        "schema": RUN,
        "command": list(command),
        "versions": versions(),
        "model_path": inputs.model,
        "dictionaries_path": inputs.dictionaries,
        "prompts_path": inputs.prompts,
        "model_hash": discovery.graph.graph["model"]["hash"],
        **made_from(inputs, config, seed, text, placement),
        "device": placement.device,
        "begins_with": discovery.graph.graph["begins_with"],
        "prompts_left_out": discovery.graph.graph["prompts_left_out"],
        "norm_outliers": discovery.norm_outliers,
        **watch.reading(),
    }
    write_json(manifest, folder / "manifest.json")


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide a run's numbers."""
    return {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES}


def made_from(
    inputs: Inputs,
    config: DiscoverConfig,
    seed: int,
    text: Sequence[str],
    placement: Placement = ANYWHERE,
) -> dict[str, Any]:
    """What decides a graph and its cards: the part of a manifest by which runs are the same."""
    return {
        "seed": seed,
        "dtype": placement.model_dtype,
        "config": config.record() | {"mlp": inputs.mlp, "unfit": inputs.unfit},
        "text": list(text),
        **inputs.hashes(),
    }


def remove_run(folder: Path) -> None:
    """Take away all that belongs to the run in `folder`; other files stay, prompts too."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (ABLATIONS, EDITED, *VIEWERS):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_page(folder: Path) -> None:
    """Render `graph.html` from whatever the run folder holds by now."""
    html = page(
        named_graph(folder),
        cards=read_from_run(folder / "cards.json"),
        heads=read_from_run(folder / HEADS) if (folder / HEADS).exists() else None,
        verification=verification_of(folder),
        ablations={
            p.parent.name: read_from_run(p) for p in sorted(folder.glob("ablations/*/result.json"))
        },
        links=links_of(folder),
    )
    write_text_atomically(folder / "graph.html", html)


def write_pages(folder: Path) -> None:
    """Render the pages of what ablations leave, and `graph.html`, which leads to them."""
    for left in sorted(folder.glob("ablations/*/graph.json")):
        _write_left(left.parent)
    write_page(folder)


def _write_left(into: Path) -> None:
    left, run = named_graph(into), run_of(into)
    did = "Edit" if "edit" in left.graph else "Ablation"
    html = page(
        left,
        cards=cards_beside(into),
        intervention=intervention_of(read_from_run(into / "result.json")),
        title=f"{did}: {into.resolve().name} · {title_of(left.graph)}",
        links=None if run is None else links_of_left(into, run),
    )
    write_text_atomically(into / "graph.html", html)


def export_page(drawn: Drawn, suffix: str) -> list[Path]:
    """Write the page anew, of a run or of what an ablation or an edit leaves.

    Of a run those of what its ablations leave too.
    """
    if drawn.intervention is None:
        write_pages(drawn.folder)
    else:
        _write_left(drawn.folder)
    return [drawn.folder / f"graph.{suffix}"]


def verification_of(folder: Path) -> Mapping[str, Any] | None:
    """The record that `circuits verify` left in a run folder, or None before it ran."""
    path = folder / "verification.json"
    return read_from_run(path) if path.exists() else None


def cards_of(folder: Path) -> Mapping[str, Any]:
    """What is known of the features of a run's graph, by SITE/FEATURE."""
    return read_from_run(folder / "cards.json")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
