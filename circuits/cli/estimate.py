"""The verb that tells what a discovery takes before it is begun."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from circuits.cli.options import (
    IG,
    Bos,
    BosUsed,
    Device,
    DictionariesToUse,
    EdgeSteps,
    EstimatorUsed,
    GraphMethod,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    MostTargets,
    NodesKept,
    Quiet,
    ReferenceUsed,
    SeedUnused,
    Threads,
    placed,
)
from circuits.cli.tables import console
from circuits.render.words import counted

if TYPE_CHECKING:
    from circuits.discovery.config import DiscoverConfig
    from circuits.prompts import Prompt
    from circuits.runs.estimate import Estimate
    from circuits.runs.estimate_training import TrainingEstimate
    from circuits.runs.needs import Amount
    from hooked_qwen.placement import Placement


def estimate(
    prompts: Annotated[Path, typer.Argument(help="Prompt file, as for discover.")],
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    method: Annotated[
        GraphMethod, typer.Option(help="The kind of graph, as for discover.")
    ] = GraphMethod.sparse_feature,
    estimator: EstimatorUsed = IG,
    nodes: NodesKept = 100,
    targets: MostTargets = 7500,
    reference: ReferenceUsed = None,
    bos: BosUsed = Bos.auto,
    mlp: MlpUsed = Mlp.sae,
    edge_steps: EdgeSteps = 0,
    text: Annotated[
        bool, typer.Option("--text", help="Count the search of running text for examples, too.")
    ] = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedUnused = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Tell the memory and the time that a discovery would take, without loading a model.

    Example: `circuits estimate prompts.jsonl --model bundled --dictionaries bundled`
    """
    from circuits.discovery.config import DiscoverConfig
    from circuits.prompts import read_prompts
    from circuits.runs.prompt_sets import reference_for

    listed = read_prompts(prompts)
    if method is GraphMethod.replacement:
        mlp = Mlp.transcoder
    config = DiscoverConfig(
        method=method.value,
        targets=targets,
        estimator=estimator.value,
        nodes=nodes,
        bos=bos.value,
        reference=reference.value if reference else reference_for(listed),
        edge_steps=edge_steps,
    )
    placement = placed(device, dtype, memory)
    print_estimate(
        estimated(listed, model, dictionaries, config, mlp, has_text=text, placement=placement)
    )


def estimated(
    prompts: "Sequence[Prompt]",
    model: str,
    dictionaries: str,
    config: "DiscoverConfig",
    mlp: Mlp,
    *,
    has_text: bool,
    placement: "Placement",
) -> "Estimate":
    """What a discovery takes; the bundled model always has text for examples."""
    from circuits.runs.discover_run import EXAMPLE_TOKENS
    from circuits.runs.estimate import estimate_discovery
    from hooked_qwen.model_place import BUNDLED, local_folder

    reads_text = has_text or local_folder(model) == local_folder(BUNDLED)
    return estimate_discovery(
        prompts,
        model=model,
        dictionaries=dictionaries,
        config=config,
        mlp=mlp.value,
        text=EXAMPLE_TOKENS if reads_text else 0,
        placement=placement,
    )


def print_estimate(found: "Estimate") -> None:
    """What a command takes, as tables and one line."""
    memory, task = found.memory, found.task
    there = "" if found.device.type == "cpu" else f"{_size(memory.total)} on {found.device}, "
    _tables(
        _memory_rows(found),
        found.times,
        f"{counted(task.prompts, 'prompt')} of {task.tokens} tokens: {there}"
        f"{_size(found.host_peak)} of this machine's memory, {_duration(found.seconds)}",
        found.assumed,
    )


def print_training(found: "TrainingEstimate") -> None:
    """What a training takes, as tables and one line."""
    _tables(
        ((item.name, item.amount, item.note) for item in found.memory if item.amount),
        found.times,
        f"{counted(found.dictionaries, 'dictionary', 'dictionaries')}: {_size(found.peak)} on "
        f"{found.device}, {_duration(found.seconds)}",
        found.assumed,
    )


def _tables(
    memory: Iterable[tuple[str, float | int, str]],
    times: Iterable["Amount"],
    total: str,
    notes: Iterable[str],
) -> None:
    table = Table("memory", "", "", box=SIMPLE)
    table.columns[1].justify = "right"
    for name, amount, note in memory:
        table.add_row(name, _size(amount), note)
    console.print(table, highlight=False)
    table = Table("time", "", "", box=SIMPLE)
    table.columns[1].justify = "right"
    for item in times:
        table.add_row(item.name, _duration(item.amount), item.note)
    console.print(table, highlight=False)
    console.print(total, highlight=False)
    for line in notes:
        console.print(f"note: {line}", highlight=False)


def _memory_rows(found: "Estimate") -> Iterator[tuple[str, float | int, str]]:
    memory = found.memory
    yield "model", memory.model, ""
    every = f"all of them are {_size(memory.every_dictionary)}"
    yield "dictionaries", memory.dictionaries, f"{every}, the largest {_size(memory.largest)}"
    yield "states of the prompts", memory.states, f"{_size(memory.one_state)} a batch"
    yield "gradients", memory.gradients, ""
    for n, item in enumerate(memory.working):
        yield f"{'or' if n else 'and'} {item.name}", item.amount, item.note
    yield f"at most on {found.device}", memory.total, ""
    yield "this process as it is", found.process, ""
    yield "the model with its files, while they are read", found.loading, ""


def _size(count: float | int) -> str:
    """Bytes, as GB or MB (powers of ten, as for --memory)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
