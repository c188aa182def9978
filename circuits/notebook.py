"""The whole job from Python, a call for each step: what `import circuits` gives.

The steps in their order stand in `circuits/__init__.py`, what they give in `circuits.results`.
Numbers are those of the command line: effects in units of the metric, positive where moving the
node to its patch value raises it.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
import pandas as pd

from circuits.analysis import Analysis
from circuits.baseline_values import BaselineValue
from circuits.comparison import differences
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.methods import discover_by_method
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate as _ablate
from circuits.edits.ablation import Ablation, parse_features
from circuits.edits.edited import graph_left
from circuits.graph import Node
from circuits.opening import load_model
from circuits.prompt_files import prompt_of
from circuits.prompts import Prompt, WhenUnfit, read_prompts
from circuits.render.exporters import Drawn, exporters
from circuits.render.pages.circuit.document import groups_on_page
from circuits.render.pages.circuit.page import page
from circuits.results import Ablated, Circuit, Sufficiency, Verification
from circuits.runs import prompt_sets
from circuits.runs.ablate_run import ablation_of
from circuits.runs.discover_run import label_features
from circuits.runs.finished_run import read_run
from circuits.runs.folder import verification_of
from circuits.runs.inputs import Inputs, open_inputs
from circuits.verification.replacement import cut_of
from circuits.verification.sufficiency import SufficiencyConfig
from circuits.verification.sufficiency import sufficiency as _sufficiency
from circuits.verification.verify import VerifyConfig
from circuits.verification.verify import verify as _verify
from hooked_qwen.bundled import language
from hooked_qwen.files import write_text_atomically
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import DtypeName, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import parse_layers
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import texts_of
from saes.suite import MlpChoice
from saes.training.config import TrainConfig
from saes.training.run import check_place
from saes.training.train import train as train_suite
from transcoders.specs import Family, dictionary_specs


def open_analysis(
    model: str = BUNDLED,
    dictionaries: str | Path = BUNDLED,
    prompts: str | Path | Sequence[Prompt | Mapping[str, Any]] = (),
    *,
    mlp: MlpChoice = "sae",
    unfit: WhenUnfit = "refuse",
    device: str | None = None,
    dtype: DtypeName | None = None,
    memory: float | None = None,
    **config: Any,
) -> Analysis:
    """Open a model, its dictionaries and a prompt set, once for all that follows.

    `prompts` is a file, `Prompt`s, or mappings with the fields of a prompt file. `config` are
    fields of `DiscoverConfig` (`metric`, `estimator`, `nodes`, `steps`, ...); nodes are set to
    the patch where there is one, and positions kept where all prompts have one length, unless
    they say otherwise.

        analysis = circuits.open("~/models/Qwen3-0.6B", "dictionaries", "prompts.jsonl", nodes=200)

    Raises `ValueError` where model, dictionaries and prompts do not fit together.
    """
    if isinstance(prompts, str | Path):
        listed = read_prompts(Path(prompts))
    else:
        listed = [_prompt(given) for given in prompts]
    if not listed:
        raise ValueError("there are no prompts: name a file, or give at least one prompt")
    config.setdefault("reference", prompt_sets.reference_for(listed))
    if "positions" not in config:
        bos = config.get("bos", "auto")
        config["positions"] = prompt_sets.positions_for(listed, model, bos, unfit)
    inputs = Inputs.resolved(model, str(dictionaries), "", mlp, unfit)
    placement = Placement(device=device, dtype=dtype, memory=memory)
    return open_inputs(inputs, DiscoverConfig(**config), listed, placement=placement).analysis


def open_run(
    folder: str | Path,
    *,
    device: str | None = None,
    dtype: DtypeName | None = None,
    memory: float | None = None,
) -> Circuit:
    """The circuit in a run folder, with its model, dictionaries and prompts opened.

        circuit = circuits.open_run("run", memory=4.0)

    On the run's own device, where that is here, and in its precision, unless told otherwise.

    Raises `ValueError` when the folder is no finished run, or what it was made from has changed.
    """
    run = read_run(Path(folder))
    record = verification_of(Path(folder))
    return Circuit(
        run.open(Placement(device=device, dtype=dtype, memory=memory)).analysis,
        run.graph,
        run.ranking,
        None if record is None else Verification(record),
    )


def make_prompts(
    task: str,
    n: int,
    *,
    out: str | Path,
    model: str = BUNDLED,
    split: language.Split = "train",
    seed: int = 0,
) -> list[Prompt]:
    """Write `n` pairs of prompts of a task, made for the model's tokenizer.

        circuits.make_prompts("ioi", 40, out="prompts.jsonl", model="~/models/Qwen3-0.6B")

    The splits `train` and `test` share no content word. Raises `ValueError` for an unknown task,
    and where `out` holds something else.
    """
    return prompt_sets.make_prompts(task, n, split=split, seed=seed, model=model, out=Path(out))


def train(
    text: Sequence[str],
    out: str | Path,
    *,
    model: str = BUNDLED,
    families: Sequence[Family] = ("saes",),
    layers: str = "all",
    sites: Sequence[str] = ("resid_post",),
    architecture: str = "topk",
    k: int | None = 32,
    device: str | None = None,
    dtype: DtypeName | None = None,
    memory: float | None = None,
    report: Report = silent,
    **config: Any,
) -> pd.DataFrame:
    """Train SAEs or MLP transcoders of many layers at once; how good each of them is.

        circuits.train(["corpus/"], "dictionaries", model="~/models/Qwen3-0.6B", layers="4-20")

    `config` are fields of `TrainConfig`: `width`, `tokens`, `learning_rate`, `seed`, ...
    `memory` is what dictionaries and activations may take on the device, in GB. Raises
    `ValueError` where `out` holds something else, or the text is too short.
    """
    placement = Placement(device=device, dtype=dtype, memory=memory)
    check_place(Path(out))
    loaded = load_model(model, report, placement)
    chosen = parse_layers(layers, loaded.cfg.n_layers)
    specs = dictionary_specs(families, chosen, sites, k=k, architecture=architecture)
    config.setdefault("width", 8 * loaded.cfg.d_model)
    training = TrainConfig(**config)
    quality = train_suite(
        loaded,
        specs,
        texts_of(list(text), seed=training.seed),
        Path(out),
        config=training,
        stream=StreamConfig(seed=training.seed),
        memory=memory,
        report=report,
    )
    return pd.DataFrame([asdict(q) for q in quality], index=[spec.name for spec in specs])


def discover(analysis: Analysis, *, text: Sequence[str] = (), report: Report = silent) -> Circuit:
    """Find the circuit: every node's effect, the strongest nodes, the edges between them.

        circuit = circuits.discover(analysis)
        circuit.nodes.head()

    Of `open(..., mlp="transcoder", method="replacement")` it is the exact graph of transcoders.
    Features are named by what activates them in the prompts, and in `text` (files or folders).
    """
    found = discover_by_method(analysis, report=report)
    texts = texts_of(list(text)) if text else None
    cards = label_features(analysis, found.graph, texts, report)
    return Circuit(analysis, found.graph, found.ranking, cards=cards)


def verify(circuit: Circuit, *, report: Report = silent, **config: Any) -> Verification:
    """Hold a circuit against ablation; writes exact effects into its graph.

    A replacement graph is held against interventions with all and with parts of the model live.

        circuits.verify(circuit, level="quick").faithfulness

    `config` are fields of `VerifyConfig`: `to`, `level`, `draws`, `pool`, `seed`.
    """
    record = _verify(
        circuit.analysis,
        circuit.graph,
        circuit.ranking,
        config=VerifyConfig(**config),
        groups=groups_on_page(circuit.graph, circuit.cards or {}),
        report=report,
    )
    circuit.verification = Verification(record)
    return circuit.verification


def sufficiency(analysis: Analysis, *, report: Report = silent, **config: Any) -> Sufficiency:
    """The metric against the number of features that are kept of the transcoders.

        how = {"mlp": "transcoder", "positions": "sum", "reference": "zero"}
        analysis = circuits.open("bundled", "bundled", "prompts.jsonl", **how)
        circuits.sufficiency(analysis, layers=(2, 3, 4)).scores

    `config` are fields of `SufficiencyConfig`: `layers`, `errors`, `sizes`, `draws`, `seed`.
    """
    record = _sufficiency(analysis, SufficiencyConfig(**config), report=report)
    return Sufficiency(record)


def ablate(
    circuit: Circuit,
    nodes: str | Iterable[Node] = (),
    *,
    top: int | None = None,
    outside: bool = False,
    to: BaselineValue = "zero",
    name: str | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Ablated:
    """Ablate nodes, run the prompts again, and find the graph that is left.

        circuits.ablate(circuit, "resid_post.3/5,mlp_out.2/7@4").prompts

    The nodes are named, or the graph's `top` strongest features, or all that is `outside` it.
    Raises `ValueError` for nodes that the suite does not have, and where none are named.
    """
    analysis, ranking = cut_of(circuit.analysis, circuit.ranking)
    ablation = _ablation(circuit, nodes, top, outside=outside, to=to)
    record = _ablate(analysis, ablation, ranking, seed=seed)
    left = graph_left(analysis, ablation, circuit.graph, report=report)
    found = Ablated(ablation, record, left)
    circuit.ablations[name or f"ablation {len(circuit.ablations) + 1}"] = found
    return found


@contextmanager
def ablated(
    circuit: Circuit,
    nodes: str | Iterable[Node] = (),
    *,
    top: int | None = None,
    to: BaselineValue = "zero",
) -> Generator[None, None, None]:
    """Nodes ablated in whatever runs inside the block, generation included.

    with circuits.ablated(circuit, top=10, to="mean"):
        circuit.analysis.model.generate("The keys near the cabinet")
    """
    with edits.apply(circuit.analysis, _ablation(circuit, nodes, top, outside=False, to=to)):
        yield


def compare(
    a: "Circuit | Ablated | nx.DiGraph", b: "Circuit | Ablated | nx.DiGraph"
) -> pd.DataFrame:
    """What changed between two graphs, largest change first.

    circuits.compare(circuit, circuits.ablate(circuit, top=10))
    """
    graphs = [x if isinstance(x, nx.DiGraph) else x.graph for x in (a, b)]
    rows = [
        {
            "node": str(row.node),
            "status": row.status,
            "effect_a": row.effect_a,
            "effect_b": row.effect_b,
            "change": row.change,
        }
        for row in differences(*graphs)
    ]
    return pd.DataFrame(rows, columns=["node", "status", "effect_a", "effect_b", "change"])


def render(circuit: Circuit, *paths: str | Path, nodes: int = 25) -> list[Path]:
    """Write pictures and files of a circuit, each in the format that its name ends in.

        circuits.render(circuit, "graph.html", "circuit.pdf", "circuit.graphml", nodes=30)

    The page shows what was verified and ablated so far. Figures show a circuit of at most `nodes`.
    What is several files, as tables and `.neuronpedia` are, becomes a folder of that name.
    Raises `ValueError` listing the formats for another one.
    """
    return [_render(circuit, Path(path), nodes) for path in paths]


def _render(circuit: Circuit, path: Path, nodes: int) -> Path:
    ((suffix, export),) = exporters([path.suffix.removeprefix(".")])
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == "html":
        text = _page(circuit)
        write_text_atomically(path, text)
        return path
    with TemporaryDirectory(dir=path.parent) as folder:
        drawn = Drawn(
            folder=Path(folder),
            graph=circuit.graph,
            verification=None,
            nodes=nodes,
            name=path.stem,
            cards=circuit.cards,
        )
        made = export(drawn, suffix)
        if len(made) > 1:
            path.mkdir(exist_ok=True)
        elif path.is_dir():
            rmtree(path)
        for one in made:
            one.replace(path / one.name if len(made) > 1 else path)
    return path


def _page(circuit: Circuit) -> str:
    checked = circuit.verification
    return page(
        circuit.graph,
        cards=circuit.cards or {},
        verification=None if checked is None else checked.record,
        ablations={name: found.record for name, found in circuit.ablations.items()},
    )


def _prompt(given: Prompt | Mapping[str, Any]) -> Prompt:
    return given if isinstance(given, Prompt) else prompt_of(given, "a prompt")


def _ablation(
    circuit: Circuit,
    nodes: str | Iterable[Node],
    top: int | None,
    *,
    outside: bool,
    to: BaselineValue,
) -> Ablation:
    if isinstance(nodes, str):
        named = parse_features(nodes, circuit.analysis.suite) if nodes else ()
    else:
        named = tuple(nodes)
    return ablation_of(circuit.graph, named, top, outside=outside, to=to)
