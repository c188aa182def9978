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

import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networkx as nx
import psutil
from transformer_lens.model_bridge import TransformerBridge

from circuits import graph as graphs
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking
from circuits.discovery.sparse_feature import Discovery
from circuits.features.card import Cards
from circuits.graph import write_json
from circuits.metrics.readout import (
    READOUT,
    MetricChoice,
    keep_readout,
    kept_readout,
    metric_name,
)
from circuits.prompts import (
    Prompt,
    write_prompts,
)
from circuits.render.exporters import Drawn
from circuits.render.heading import title_of
from circuits.render.interventions import intervention_of
from circuits.render.page import page
from circuits.runs.inputs import Inputs, Loaded, open_inputs
from circuits.runs.overwrite import ABLATIONS, EDITED, RUN, RUN_FILES, VIEWERS
from circuits.runs.pages import cards_beside, links_of, links_of_left, named_graph, run_of
from circuits.runs.ranking_file import RANKING, read_ranking, write_ranking
from hooked_qwen.files import content_hash, write_atomically
from hooked_qwen.identity import identity
from hooked_qwen.load import local_folder
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, AUTO, Placement, is_here

HEADS = "heads.json"
PACKAGES = ("qwen-circuits", "torch", "transformers", "transformer-lens", "networkx", "safetensors")


class Stopwatch:
    """Wall time since it was made, and the process's peak memory."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def reading(self) -> dict[str, float]:
        return {
            "wall_seconds": round(time.perf_counter() - self.start, 2),
            "peak_memory_mb": round(peak_memory() / 2**20, 1),
        }


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # No such module on Windows, and psutil knows no peak elsewhere.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
        "dtype": placement.dtype or "float32",
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
        cards=_read(folder / "cards.json"),
        heads=_read(folder / HEADS) if (folder / HEADS).exists() else None,
        verification=verification_of(folder),
        ablations={p.parent.name: _read(p) for p in sorted(folder.glob("ablations/*/result.json"))},
        links=links_of(folder),
    )
    write_atomically(folder / "graph.html", lambda p: p.write_text(html, encoding="utf-8"))


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
        intervention=intervention_of(_read(into / "result.json")),
        title=f"{did}: {into.resolve().name} · {title_of(left.graph)}",
        links=None if run is None else links_of_left(into, run),
    )
    write_atomically(into / "graph.html", lambda p: p.write_text(html, encoding="utf-8"))


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
    return _read(path) if path.exists() else None


def cards_of(folder: Path) -> Mapping[str, Any]:
    """What is known of the features of a run's graph, by SITE/FEATURE."""
    return _read(folder / "cards.json")


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    folder: Path
    graph: nx.DiGraph
    ranking: Ranking
    inputs: Inputs
    config: DiscoverConfig
    seed: int = 0
    "what the run was asked for, and the random draws of its checks are made with"
    placement: Placement = ANYWHERE
    "where it was found, and in which precision of the model"
    imported: str | None = None
    "the file that it was read from, where another program found it"

    def check_has(self, *, model: bool) -> None:
        """Raise `ValueError` for a graph of another program without dictionaries, or a model."""
        if self.imported is None or (self.inputs.dictionaries and not model):
            return
        lacks = "the model and prompt it was found with are" if model else "its dictionaries are"
        raise ValueError(
            f"{self.folder} was imported from {self.imported}, and {lacks} not in that file: it "
            "can be drawn and compared, and `circuits edit make` takes it once it is imported with "
            "--dictionaries"
        )

    def with_metric(self, metric: MetricChoice | None) -> "Run":
        """The run with its metric given again, where that is a function, which files do not hold.

        Raises `ValueError` when the run was made with another one.
        """
        if metric is None:
            return self
        names = metric_name(self.config.metric), metric_name(metric)
        if names[0] != names[1]:
            raise ValueError(
                f"{self.folder} was made with the metric {names[0]}, not with {names[1]}"
            )
        return replace(self, config=replace(self.config, metric=metric))

    def open(self, placement: Placement = ANYWHERE, beside: Loaded | None = None) -> Loaded:
        """Load what the run was made from; raises `ValueError` when any of it has changed.

        `beside` another run, as `open_inputs` does. On the run's own device where that is here,
        and in its precision, unless `placement` says otherwise; another precision than the
        run's is said, for effects then differ.
        """
        self.check_has(model=True)
        manifest = _read(self.folder / "manifest.json")
        for name, found in self.inputs.hashes().items():
            if found != manifest[name]:
                raise self._changed(name.removesuffix("_hash"))
        loaded = open_inputs(
            self.inputs, self.config, placement=self.placed(placement), beside=beside
        )
        if not self._is_model(loaded.analysis.model, manifest["model_hash"]):
            raise self._changed("model")
        tokens_hash = loaded.analysis.prompts.tokens_hash()
        if self.graph.graph.get("tokens_hash") not in (None, tokens_hash):
            raise self._changed("model", "tokenizer of the model")
        return loaded

    def placed(self, asked: Placement) -> Placement:
        """Where and in which precision the run is opened; says where that is not the run's own."""
        own = self.placement
        if asked.dtype not in (None, own.dtype):
            notify(
                f"{self.folder} was found with the model in {own.dtype}, and is held against the "
                f"model in {asked.dtype}: differences may be those of rounding"
            )
        device = asked.device or own.device or AUTO
        if asked.device is None and not is_here(device):
            notify(f"{self.folder} was found on {device}, which is not here: computing on another")
            device = AUTO
        return Placement(device=device, dtype=asked.dtype or own.dtype, memory=asked.memory)

    def _is_model(self, model: TransformerBridge, recorded: str | None) -> bool:
        if recorded in (None, identity(model)):
            return True
        # Earlier versions recorded a hash of the model's files, None for those on the hub.
        files = local_folder(self.inputs.model)
        return files is not None and content_hash(files) == recorded

    def _changed(self, what: str, part: str | None = None) -> ValueError:
        return ValueError(
            f"the {part or what} at {getattr(self.inputs, what)} changed since "
            f"{self.folder} was made: run `circuits discover` again"
        )


def check_finished(folder: Path) -> None:
    """Raise `ValueError` where a folder is no run, or is not complete."""
    if not (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder} is not a finished run: no manifest.json. "
            "Make one with `circuits discover PROMPTS --out RUN`"
        )


def read_run(folder: Path) -> Run:
    """Open a run folder; raises `ValueError` when it is none, or is not complete."""
    check_finished(folder)
    manifest = _read(folder / "manifest.json")
    # Earlier versions put nothing before a prompt.
    config = {"bos": "never"} | manifest["config"]
    inputs = Inputs(
        model=manifest["model_path"],
        dictionaries=manifest["dictionaries_path"],
        prompts=manifest["prompts_path"],
        mlp=config.pop("mlp"),
        unfit=config.pop("unfit", "refuse"),
    )
    if config["metric"].startswith(READOUT):
        config["metric"] = kept_readout(config["metric"], folder)
    graph = graphs.load(folder / "graph.json")
    ranking = read_ranking(folder / RANKING)
    seed = manifest.get("seed", 0)
    # Earlier versions computed on the CPU in float32, and did not say so.
    placement = Placement(
        device=manifest.get("device", "cpu"), dtype=manifest.get("dtype", "float32")
    )
    found = (folder, graph, ranking, inputs, DiscoverConfig(**config), seed, placement)
    return Run(*found, imported=manifest.get("imported"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): run the command again") from None
