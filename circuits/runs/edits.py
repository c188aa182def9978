"""What each verb for edits does, as one function: opened, made or read, written."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.ablation import parse_features
from circuits.edits.bake import RECORD, BakeConfig, bake
from circuits.edits.make import (
    Change,
    check_counted_from_start,
    edit_of,
    edit_outside,
    strongest,
    with_means,
)
from circuits.edits.node_files import read_graph, read_nodes
from circuits.graph import Node, write_json
from circuits.opening import open_suite
from circuits.prompts import read_prompts
from circuits.runs.finished_run import read_run
from circuits.runs.overwrite import EDITED, MADE_FROM, check_record, check_text
from circuits.verification.edited_circuit import verify_edited
from circuits.verification.verify import VerifyConfig
from hooked_qwen.files import build_folder_atomically, content_hash
from hooked_qwen.identity import identity
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from saes.edit_checks import check_edit
from saes.edit_file import Edit
from saes.suite import MlpChoice, Suite, load_suite


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which nodes an edit is of: one of these."""

    features: str | None = None
    "such as 'mlp_out.3/812,resid_post.5/17@4'"
    top: int | None = None
    "strongest features of the run's graph"
    outside: bool = False
    "everything outside the run's graph, or outside what `nodes` holds"
    nodes: Path | None = None
    "a file of `circuits.edits.node_files`"
    groups: tuple[str, ...] = ()
    "of that file"

    def __post_init__(self) -> None:
        chosen = [self.features is not None, self.top is not None, self.nodes is not None]
        alone = self.outside and self.nodes is None
        if sum([*chosen, alone]) != 1 or (self.outside and (self.features or self.top)):
            raise ValueError(
                "say what the edit is of with one of --features, --top, --outside, --nodes, "
                "--compose or --invert; --outside goes with --nodes too"
            )
        if self.groups and self.nodes is None:
            raise ValueError("--group is one of a file: name it with --nodes")


def make_edit(
    selection: Selection,
    change: Change,
    out: Path,
    *,
    run: Path | None = None,
    dictionaries: str = "bundled",
    mlp: MlpChoice = "sae",
    force: bool = False,
    placement: Placement = ANYWHERE,
) -> Edit:
    """Write the edit that does `change` to the nodes of `selection`.

    Of the dictionaries of a run, where one is given, else of `dictionaries`. A model is opened
    only where nodes go to their mean: it is that over the run's prompts.

    Raises `ValueError` for a selection of a graph without a run, for a mean without one, and where
    `out` holds something else.
    """
    opened = None if run is None else read_run(run)
    graph = None if opened is None else opened.graph
    if opened is None:
        suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
        if change.do == "mean":
            raise ValueError("a mean is over the prompts of a run: name the run's folder first")
    else:
        opened.check_has(model=change.do == "mean")
        suite = load_suite(
            opened.inputs.dictionaries, mlp=opened.inputs.mlp, memory=placement.memory
        )
    edit = _selected(selection, change, suite, graph)
    check_without_means(suite, edit)
    if opened is not None and change.do == "mean":
        edit = with_means(edit, opened.open(placement).analysis)
    return _written(edit, out, force=force)


def check_without_means(suite: Suite, edit: Edit) -> None:
    """`check` of an edit whose means are not known yet."""
    if not any(op.needs == "mean" for op in edit.operations):
        check_edit(suite, edit)


def _selected(selection: Selection, change: Change, suite: Suite, graph: nx.DiGraph | None) -> Edit:
    if selection.features is not None:
        named = parse_features(selection.features, suite)
        for node in named:
            if node.position is not None and change.positions is not None:
                raise ValueError(f"{node} has a position of its own: leave out @ or --positions")
        return edit_of(named, suite, change)
    if graph is not None:
        check_counted_from_start(graph, change)
    nodes: Iterable[Node]
    if selection.nodes is not None:
        nodes = read_nodes(selection.nodes, selection.groups)
    elif graph is None:
        raise ValueError("--top and --outside are of a run's graph: name the run's folder first")
    else:
        nodes = graph if selection.outside else strongest(graph, selection.top or 0)
    return (edit_outside if selection.outside else edit_of)(nodes, suite, change)


def compose_edits(paths: Sequence[Path], out: Path, *, force: bool = False) -> Edit:
    """Write the edit that does one edit after another."""
    first, *others = (Edit.load(path) for path in paths)
    for other in others:
        first = first.then(other)
    return _written(first, out, force=force)


def invert_edit(path: Path, out: Path, *, force: bool = False) -> Edit:
    """Write the edit that undoes another; raises `ValueError` where nothing does."""
    return _written(Edit.load(path).inverse(), out, force=force)


def read_edit(path: Path, dictionaries: str | None = None, mlp: MlpChoice = "sae") -> Edit:
    """An edit, held against `dictionaries` where they are given; `ValueError` if of others."""
    edit = Edit.load(path)
    if dictionaries is not None:
        check_edit(load_suite(dictionaries, mlp=mlp), edit)
    return edit


def verify_edited_graph(
    folder: Path,
    path: Path,
    *,
    config: VerifyConfig,
    held_out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> tuple[dict[str, Any], Path]:
    """Check a graph that was edited by hand in the model of a run; into `edited/NAME/`.

    NAME is that of the file. Raises `ValueError` where another check of that name would be lost,
    unless by `force`, and for a graph that is not of the run's dictionaries.
    """
    into, graph = folder / EDITED / path.stem, read_graph(path)
    run = read_run(folder)
    source = {
        **asdict(config),
        "graph_hash": content_hash(path),
        "held_out_hash": held_out and content_hash(held_out),
        "dtype": placement.dtype or run.placement.dtype,
    }
    check_record(into / "verification.json", source, force=force)
    loaded = run.open(placement)
    record = verify_edited(
        loaded.analysis,
        graph,
        config=config,
        held_out=None if held_out is None else loaded.others(held_out),
        report=report,
    )

    def build(partial: Path) -> None:
        shutil.copy(path, partial / path.name)
        write_json(record | {MADE_FROM: source}, partial / "verification.json")

    build_folder_atomically(into, build)
    return record, into


@dataclass(frozen=True)
class ModelAndSuite:
    """A model and its dictionaries, without prompts to analyse."""

    model: TransformerBridge
    suite: Suite


def bake_edit(
    path: Path,
    out: Path,
    *,
    run: Path | None = None,
    model: str = BUNDLED,
    dictionaries: str = BUNDLED,
    mlp: MlpChoice = "sae",
    prompts: Path | None = None,
    config: BakeConfig | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Bake an edit into a model's folder; the record of its `baked.json`.

    Model, dictionaries and prompts are a run's, where one is given, and `prompts` others to hold
    it against. Raises `ValueError` where neither gives prompts, and where `out` holds something
    else.
    """
    edit, config = Edit.load(path), config or BakeConfig()
    if out.exists() and not (out / RECORD).is_file():
        raise ValueError(f"{out} is there and is no baked model: choose another --out")
    if run is None and prompts is None:
        raise ValueError(
            "a baked model is held against the hooked edit on prompts: name some with --prompts, "
            "or a run with --run"
        )
    opened, listed = None if run is None else read_run(run), prompts
    if opened is not None:
        opened.check_has(model=True)
        model, dictionaries, mlp = (
            opened.inputs.model,
            opened.inputs.dictionaries,
            opened.inputs.mlp,
        )
        placement = replace(placement, dtype=placement.dtype or opened.placement.dtype)
        listed = prompts or Path(opened.inputs.prompts)
    assert listed is not None, "a run has prompts"
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    source = {"edit_hash": content_hash(path), "model_hash": identity(loaded), **asdict(config)}
    check_record(out / RECORD, source, force=force)
    texts = [prompt.clean for prompt in read_prompts(listed)]
    return bake(
        ModelAndSuite(loaded, suite.fitting(loaded)), edit, out, texts, config, made_from=source
    )


def _written(edit: Edit, out: Path, *, force: bool) -> Edit:
    check_text(out, edit.text(), force=force)
    edit.save(out)
    return edit
