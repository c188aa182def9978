"""What a rerun is of: a run's model, dictionaries and prompts, or those that are named."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.edits.continuations import GenerateConfig
from circuits.edits.side_effects import SideEffectsConfig
from circuits.metrics.answers import with_own_answers
from circuits.opening import open_model
from circuits.prompts import encode_prompts, read_prompts
from circuits.runs.finished_run import read_run
from circuits.runs.folder import cards_of
from circuits.runs.prompt_sets import positions_for, reference_for
from hooked_qwen.files import content_hash
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import Placement
from hooked_qwen.progress import Report
from saes.edit_checks import check_edit
from saes.edit_file import Edit
from saes.suite import MlpChoice, Suite, hash_of, load_suite
from transcoders.interventions import THE_MODEL, Mode

METRIC = "logit-difference"


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What is run again under an edit."""

    run: Path | None = None
    "a run whose model, dictionaries, prompts and settings these are; its graph is found again"
    prompts: Path | None = None
    "a prompt file; in place of the run's, but for the graph"
    metric: str = METRIC
    "of the prompts; of a run it is the run's own"
    text: tuple[str, ...] = ()
    "sources of `hooked_qwen.texts`"
    tokens: int = 8192
    "of the text, at most"
    generate: tuple[str, ...] = ()
    "prompts to write on from"
    side_effects: SideEffectsConfig | None = None
    "what else the edit does is looked at, on other tasks and on the text, else on our English"
    writing: GenerateConfig = field(default_factory=GenerateConfig)
    seed: int = 0
    mode: Mode = THE_MODEL
    "what of the model is held while prompts are run, those that are written on from too"

    def __post_init__(self) -> None:
        if self.mode != THE_MODEL and (self.text or self.side_effects):
            raise ValueError(
                "--attention and --mlps hold what a prompt's own run had, so they are for prompts "
                "and what is generated from them: leave out --text and --side-effects, or run "
                "these without them"
            )
        if not (self.run or self.prompts or self.text or self.generate or self.side_effects):
            raise ValueError(
                "say what to run again with --run, --prompts, --text, --generate or --side-effects"
            )
        if self.run is not None and self.metric != METRIC:
            raise ValueError(
                f"--metric is {self.metric}, and with --run it is the run's own: leave out "
                "--metric, or --run"
            )

    def made_from(self) -> dict[str, Any]:
        """What decides the result, as a record holds it."""
        prompts = self.prompts and content_hash(self.prompts)
        run = self.run and content_hash(self.run / "graph.json")
        made = asdict(self) | {"prompts": prompts, "run": run}
        # Folders of earlier versions say nothing of it.
        if self.mode == THE_MODEL:
            del made["mode"]
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedRerun:
    """A model, its dictionaries, and the prompts that are run again, if any."""

    model: TransformerBridge
    suite: Suite
    name: str
    "of the model, by which its tasks are known"
    analysis: Analysis | None = None
    "of the prompts that are run again"
    told: str = ""
    "what these prompts are called"
    of_run: Analysis | None = None
    "the run's own, where there is one"
    before: nx.DiGraph = field(default_factory=nx.DiGraph)
    "the run's graph"
    cards: Mapping[str, Any] = field(default_factory=dict)
    "of the run's features"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What decides the result, known before anything is opened."""

    source: dict[str, Any]
    open: Callable[[Report], OpenedRerun]


def open_without_run(
    edit: Edit,
    rerun: Rerun,
    model: str,
    dictionaries: str,
    mlp: MlpChoice,
    placement: Placement,
) -> Opening:
    """A model and dictionaries as they are named; `ValueError` where the edit is of others."""
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    check_edit(suite, edit)

    def opened(report: Report) -> OpenedRerun:
        loaded = open_model(suite, model, placement, report)
        fitting = suite.fitting(loaded)
        if rerun.prompts is None:
            return OpenedRerun(model=loaded, suite=fitting, name=model)
        analysis = _analysis(loaded, fitting, rerun.prompts, rerun.metric, model)
        return OpenedRerun(
            model=loaded, suite=fitting, name=model, analysis=analysis, told=rerun.prompts.name
        )

    source = {
        "dictionaries_hash": hash_of(dictionaries),
        "model": model,
        "mlp": mlp,
        "dtype": placement.model_dtype,
    }
    return Opening(source=source, open=opened)


def _analysis(
    model: TransformerBridge, suite: Suite, prompts: Path, metric: str, name: str
) -> Analysis:
    listed = read_prompts(prompts)
    positions = positions_for(listed, name, "auto", "refuse")
    config = DiscoverConfig(metric=metric, positions=positions, reference=reference_for(listed))
    encoded = encode_prompts(listed, model.tokenizer, positions=positions)
    return Analysis.of(model, suite, with_own_answers(model, encoded), config)


def open_run(
    edit: Edit,
    rerun: Rerun,
    model: str,
    dictionaries: str,
    mlp: MlpChoice,
    placement: Placement,
) -> Opening:
    """What a run was made from; raises `ValueError` where the edit is of other dictionaries.

    So it does where a model or dictionaries are named besides.
    """
    assert rerun.run is not None, "asked for above"
    for option, given, usual in (
        ("--model", model, BUNDLED),
        ("--dictionaries", dictionaries, BUNDLED),
        ("--mlp", mlp, "sae"),
    ):
        if given != usual:
            raise ValueError(
                f"{option} is {given}, and with --run it is the run's own: leave out {option}, or "
                "--run"
            )
    folder = rerun.run
    run = read_run(folder)
    run.check_has(model=True)
    inputs = run.inputs
    check_edit(load_suite(inputs.dictionaries, mlp=inputs.mlp, memory=placement.memory), edit)

    def opened(report: Report) -> OpenedRerun:
        loaded = run.open(placement)
        analysis, told = loaded.analysis, "the run"
        if rerun.prompts is not None:
            analysis, told = analysis.on(loaded.others(rerun.prompts)), rerun.prompts.name
        return OpenedRerun(
            model=analysis.model,
            suite=analysis.suite,
            name=inputs.model,
            analysis=analysis,
            told=told,
            of_run=loaded.analysis,
            before=run.graph,
            cards=cards_of(folder),
        )

    return Opening(
        source={**inputs.hashes(), "dtype": placement.dtype or run.placement.dtype}, open=opened
    )
