"""A finished run, read back from its folder and opened again."""

from dataclasses import dataclass, replace
from pathlib import Path

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits import graph as graphs
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking
from circuits.metrics.readout import (
    READOUT,
    MetricChoice,
    kept_readout,
    metric_name,
)
from circuits.runs.inputs import Inputs, Loaded, open_inputs
from circuits.runs.pages import read_from_run
from circuits.runs.ranking_file import RANKING, read_ranking
from hooked_qwen.files import content_hash
from hooked_qwen.identity import identity
from hooked_qwen.model_place import local_folder
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, AUTO, Placement, is_here


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
        manifest = read_from_run(self.folder / "manifest.json")
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
    manifest = read_from_run(folder / "manifest.json")
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
