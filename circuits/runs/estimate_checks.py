"""What verify or ablate of a run will take, told before it begins: memory, and time.

Nothing is loaded but the tokenizer. Passes are counted (`circuits.runs.needs_checks`); how fast
this machine makes them is measured on one layer with random weights, plainly and with the nodes
of a random dictionary set in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from circuits.baseline_values import BaselineValue
from circuits.edits.ablation import Ablation, check_positions, parse_features
from circuits.graph import Node
from circuits.prompts import read_prompts
from circuits.render.pages.circuit.document import groups_on_page
from circuits.render.words import counted
from circuits.runs.ablate_run import ablation_of
from circuits.runs.estimate import (
    MEASURED_FEATURES,
    Estimate,
    Known,
    encoding_rate,
    random_dictionary,
    read_inputs,
)
from circuits.runs.estimate_reading import dictionary_times
from circuits.runs.finished_run import Run, read_run
from circuits.runs.needs import Amount, MemoryNeeds, edge_operations, on
from circuits.runs.needs_checks import (
    LEFT,
    Checked,
    ablate_memory,
    ablate_passes,
    verify_memory,
    verify_passes,
)
from circuits.runs.needs_passes import PassCounter, Passes
from circuits.runs.pages import cards_beside
from circuits.verification.verify import VerifyConfig, check_ablated_to
from hooked_qwen.cost import ModelCost, Rate, measured_rate, one_layer, seconds
from hooked_qwen.forward import block_arguments, resume
from hooked_qwen.placement import ANYWHERE, Placement
from saes.evaluation.baselines import neurons
from saes.intervention import Baseline, setting, touched
from saes.nodes import NodeSet
from saes.suite import Suite, load_suite

MEASURED_TOKENS = 1024
"Of the passes that are timed."


def estimate_verification(
    folder: Path,
    *,
    config: VerifyConfig,
    held_out: Path | None = None,
    placement: Placement = ANYWHERE,
) -> Estimate:
    """What `circuits verify` of a run will take on this machine.

    Raises `ValueError` as `verify_run` would for a run or prompts that it cannot read, and for
    a replacement graph, whose checks are not counted.
    """
    run = _readable(folder, "verify")
    known, placement = _read_inputs(run, None, placement)
    checked = _checked(run, known, placement)
    if held_out is not None:
        others, _ = _read_inputs(run, held_out, placement)
        checked = replace(checked, held_out=replace(checked.counter, task=others.task))
    to = config.to or ("mean" if known.task.patched or known.task.prompts > 1 else "zero")
    check_ablated_to(to, run.config.reference)
    passes = verify_passes(checked, config, to)
    return _estimated(known, checked, passes, verify_memory(checked, config))


def estimate_ablation(
    folder: Path,
    *,
    features: str | None = None,
    top: int | None = None,
    outside: bool = False,
    to: BaselineValue = "zero",
    prompts: Path | None = None,
    placement: Placement = ANYWHERE,
) -> Estimate:
    """What `circuits ablate` of a run will take on this machine.

    Raises `ValueError` as `ablate_run` would for nodes that cannot be ablated, and as
    `estimate_verification` does.
    """
    run = _readable(folder, "ablate")
    known, placement = _read_inputs(run, prompts, placement)
    checked = _checked(run, known, placement)
    named = () if features is None else parse_features(features, checked.counter.suite)
    edit = ablation_of(run.graph, named, top, outside=outside, to=to)
    summed = run.config.positions == "sum"
    check_positions(edit, 1 if summed else known.task.tokens)
    passes = ablate_passes(checked, edit)
    return _estimated(known, checked, passes, ablate_memory(checked), edit)


def _readable(folder: Path, verb: str) -> Run:
    run = read_run(folder)
    run.check_has(model=True)
    if run.config.method == "replacement":
        raise ValueError(
            f"{folder} is a replacement graph, whose {verb} is not estimated: its discovery is, by "
            "`circuits estimate PROMPTS --method replacement`"
        )
    return run


def _read_inputs(run: Run, prompts: Path | None, asked: Placement) -> tuple[Known, Placement]:
    """A run's inputs, and where and in which precision it would be checked."""
    placement = run.placed(asked)
    known = read_inputs(
        read_prompts(prompts or Path(run.inputs.prompts)),
        model=run.inputs.model,
        dictionaries=run.inputs.dictionaries,
        config=run.config,
        mlp=run.inputs.mlp,
        unfit=run.inputs.unfit,
        placement=placement,
    )
    return known, placement


def _checked(run: Run, known: Known, placement: Placement) -> Checked:
    suite = load_suite(run.inputs.dictionaries, mlp=run.inputs.mlp)
    return Checked(
        counter=PassCounter(known.model, suite, known.shapes, known.task),
        graph=run.graph,
        ranking=run.ranking,
        groups=groups_on_page(run.graph, cards_beside(run.folder)),
        memory=placement.memory,
    )


def _estimated(
    known: Known,
    run: Checked,
    passes: Sequence[Passes],
    memory: MemoryNeeds,
    edit: Ablation | None = None,
) -> Estimate:
    """Seconds of all `passes`, and of the edges of the graph that an ablation leaves."""
    counter, device = run.counter, known.device
    rows = max(1, MEASURED_TOKENS // known.task.tokens)
    rate = measured_rate(known.model, str(device), rows, known.task.tokens)
    setting_rate = _setting_rate(counter, rows, device)
    features = min(max(s.features for s in known.shapes), MEASURED_FEATURES)
    encoding = encoding_rate(known.model, features, MEASURED_TOKENS, device)
    items = [_item(one, rate, setting_rate, encoding, known.model) for one in passes]
    if edit is not None:
        of_edges = edge_operations(known.model, known.shapes, known.task)
        items += [Amount(f"{LEFT}edges", i.amount / rate.backward, "products") for i in of_edges]
    times = (
        *known.opening(rate.hashed),
        *dictionary_times(
            known.shapes, _read_again(run, passes, edit), run.memory, known.disk, device
        ),
        *items,
    )
    return known.estimate(memory, times)


def _read_again(run: Checked, passes: Sequence[Passes], edit: Ablation | None) -> int:
    """How often all dictionaries are asked for.

    An ablation asks for those of the sites where it ablates, which count as far as they are not
    kept; the graph that is left asks for all.
    """
    reading = [one for one in passes if one.edited or one.encoded]
    if edit is None:
        return sum(one.count for one in reading)
    sites = touched(run.counter.suite, edit.kept_set().complement())
    some, every = (sum(s.bytes for s in c.shapes) for c in (run.counter.at(sites), run.counter))
    share = 0.0 if run.memory is not None and some <= run.memory * 1e9 else some / every
    return ceil(sum(one.count * (1.0 if LEFT in one.name else share) for one in reading))


@dataclass(frozen=True)
class SettingRate:
    """Seconds in which a node is set at a token of a pass."""

    feature: float
    "for each feature of a dictionary, most of which are off"
    coordinate: float


def _item(
    passes: Passes, rate: Rate, setting: SettingRate, encoding: float, model: ModelCost
) -> Amount:
    amount = passes.forward / rate.forward + passes.both / rate.both
    amount += passes.edited * setting.feature + passes.coordinates * setting.coordinate
    amount += 2 * model.d_model * passes.encoded / encoding
    return Amount(passes.name, amount, f"{counted(passes.count, 'pass', 'passes')} of the model")


def _setting_rate(counter: PassCounter, rows: int, device: torch.device) -> SettingRate:
    """What a pass through one layer takes longer where nodes are set behind it."""
    model, task = counter.model, counter.task
    layer = one_layer(model, device)
    widest = max(counter.shapes, key=lambda shape: shape.features)
    features = min(widest.features, MEASURED_FEATURES)
    dictionary = random_dictionary(model, features, device, on(widest))
    suite = Suite({dictionary.name: dictionary}, {})
    x = torch.randn(rows, task.tokens, model.d_model).to(device)
    arguments = block_arguments(layer, rows, task.tokens)
    circuits = max(1, rows // task.batch)

    def once(some: Suite | None) -> float:
        with torch.no_grad():
            if some is None:
                return seconds(lambda: resume(layer, x, 0, arguments))
            kept, baseline = _random_circuit(some, task.tokens), _baseline(some, x)
            with setting(layer, some, [kept] * circuits, baseline):
                return seconds(lambda: resume(layer, x, 0, arguments))

    plain = once(None)
    tokens = rows * task.tokens
    return SettingRate(
        max(0.0, once(suite) - plain) / (tokens * features),
        max(0.0, once(neurons(suite)) - plain) / (tokens * model.d_model),
    )


def _random_circuit(suite: Suite, tokens: int) -> NodeSet:
    """Everything but a few features."""
    (name,) = suite
    return NodeSet.of([Node(name, i, i % tokens) for i in range(8)]).complement()


def _baseline(suite: Suite, x: Tensor) -> Baseline:
    """The nodes of the first row, for every row."""
    (name,) = suite
    dictionary = suite[name]
    return Baseline({name: dictionary.encode(x[:1])}, {dictionary.target: x[:1]}, {})
