"""Sparse feature circuits: the paper's procedure written plainly, and ours, on the same numbers.

    python -m benchmarks.sparse_feature_circuit [--model bundled|PATH --dictionaries PATH
        --prompts FILE] [--pairs N] [--nodes N] [--threads N] [--rounds N] [--device DEVICE]
        [--quick]

A job is the effects of all nodes, or the weights of all edges among the strongest, by one side.
Jobs run in turn, each in a fork of this process, which has the model in memory (on a card, which
no fork can use, in this process); time and peak memory are counted after a first small pass
through it. Every run's numbers are compared with ours, and a difference ends the benchmark;
`ig-inputs` is held against exact effects instead. What the sides do is in
`circuits.discovery.sparse_feature` and `sparse_feature_circuit_baseline.py`.
"""

import argparse
import ctypes
import json
import os
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks import devices
from benchmarks import sparse_feature_circuit_baseline as baseline
from benchmarks.sparse_feature_circuit_baseline import Act, Cost
from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.edges import edge_weights
from circuits.attribution.spill import PerSite
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.graph import Node
from circuits.prompts import encode_prompts, read_prompts
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.stopwatch import peak_memory
from circuits.verification.estimator_agreement import agreement
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from saes.suite import Suite, load_suite

RESULTS = Path(__file__).parent / "results" / "sparse_feature_circuit.json"
TASK = "agreement_nounpp"
TOLERANCE = 1e-4
"Largest difference allowed, relative to the largest number."
EXACT = "spearman_with_exact"
STAGES = ("nodes", "edges")
SIDES = ("ours", "plain", "published")
FASTER = "ig-inputs"
"An estimator of node effects that is ours too, with other numbers: it is timed, not compared."
COSTS: tuple[Cost, ...] = ("plain", "published")
JobNumbers = Mapping[Any, float]
Job = Callable[[], JobNumbers]
Name = tuple[str, str]
"Stage and side, such as nodes, plain."


@dataclass(frozen=True)
class JobCost:
    """What a job cost, and how far its numbers are from ours, relative to the largest."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    difference: float


def main() -> None:
    """Run every job in turn, print the table; write the results unless `--quick`."""
    chosen = _arguments()
    # A process whose threads have started cannot be forked safely.
    torch.set_num_threads(1)
    inputs = _inputs(chosen)
    references, jobs = _jobs(inputs)
    runs: dict[Name, list[JobCost]] = {name: [] for name in jobs}
    for _ in range(chosen.rounds):
        for name, work in jobs.items():
            run = _apart(inputs, lambda: _timed(work, references[name[0]], inputs, chosen.threads))  # noqa: B023
            print(*name, run, file=sys.stderr)
            if name[1] != FASTER:
                _check(name, run)
            runs[name].append(run)
    quality = _apart(inputs, lambda: _quality(inputs, references["nodes"]))
    record = _record(chosen, inputs, references, runs) | {EXACT: quality}
    print(table(record))
    if not chosen.quick:
        _write(record)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.sparse_feature_circuit")
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--dictionaries", default=BUNDLED)
    parser.add_argument("--prompts", type=Path, help="default: bundled subject-verb agreement")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each job")
    parser.add_argument("--device", default="cpu", help="any that torch knows, such as cuda")
    parser.add_argument("--quick", action="store_true", help="small and once; nothing is written")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.pairs, chosen.nodes, chosen.rounds = 4, 20, 1
    return chosen


def _inputs(chosen: argparse.Namespace) -> Analysis:
    with TemporaryDirectory() as temporary:
        file = chosen.prompts or Path(temporary) / "prompts.jsonl"
        if chosen.prompts is None:
            make_prompts(TASK, chosen.pairs, split="test", seed=0, model=chosen.model, out=file)
        pairs = read_prompts(file)[: chosen.pairs]
    model = load(chosen.model, device=chosen.device)
    prompts = encode_prompts(pairs, model.tokenizer, positions="keep")
    suite = load_suite(chosen.dictionaries, mlp="transcoder").fitting(model)
    config = DiscoverConfig(nodes=chosen.nodes, batch_size=len(prompts))
    return Analysis.of(model, Suite({name: suite[name] for name in suite}, {}), prompts, config)


def _warm_up(i: Analysis) -> None:
    """One small pass there and back: what is set up once, and weights mapped into the process."""
    for dictionary in i.suite.values():
        dictionary(dictionary.W_enc.new_zeros(1, dictionary.W_enc.shape[1]))
    one = i.prompts.clean.rows(torch.tensor([0]))
    leaves: list[Tensor] = []

    def start(value: Tensor) -> Tensor:
        leaves.append(value.detach().requires_grad_())
        return leaves[0]

    with intervene(i.model, {EMBED: start}):
        value = last_logits(i.model, one).sum()
    torch.autograd.grad(value, leaves)


def _jobs(i: Analysis) -> tuple[dict[str, JobNumbers], dict[Name, Job]]:
    """Our numbers of each stage, and every job.

    All edges are given the same kept nodes, states, slopes and gradients: those of the stage
    before.
    """
    effects, gradients = _apart(i, lambda: _our_nodes(i))
    kept = [n for n in effects if n.kind != "token"][: i.config.nodes]
    kept += [n for n in effects if n.kind == "token"]
    acts = {site: _as_act(i.suite, site, g) for site, g in gradients.items()}
    clean, patch = baseline.states(_problem(i, "plain"))
    (state,) = i.states
    slopes = {site: state.features[str(site)].slope.dense() for site in i.suite.writes}
    jobs: dict[Name, Job] = {
        ("nodes", "ours"): lambda: _our_nodes(_anew(i))[0],
        ("nodes", FASTER): lambda: _our_nodes(_anew(i), FASTER)[0],
        ("edges", "ours"): lambda: edge_weights(i, state, gradients, kept),
    }
    for cost in COSTS:
        jobs["nodes", cost] = lambda cost=cost: baseline.node_effects(
            _problem(i, cost), steps=i.config.steps
        )
        jobs["edges", cost] = lambda cost=cost: baseline.edge_weights(
            _problem(i, cost), clean, patch, acts, slopes, kept
        )
    return {"nodes": effects, "edges": _apart(i, jobs["edges", "ours"])}, jobs


def _anew(i: Analysis) -> Analysis:
    """The same without its states: to make them is part of the job."""
    return Analysis.of(i.model, i.suite, i.prompts, i.config, metric=i.metric)


def _our_nodes(i: Analysis, estimator: str = "ig") -> tuple[dict[Node, float], PerSite]:
    ranking, (gradients,) = rank_nodes(i.asked(replace(i.config, estimator=estimator)))
    return dict(ranking), gradients


def _quality(i: Analysis, effects: JobNumbers) -> dict[str, float | None]:
    """Rank correlation of each estimator with exact effects, on the strongest nodes by either."""
    others = _our_nodes(i, FASTER)[0]
    chosen = sorted({*_strongest(i, effects), *_strongest(i, others)}, key=str)
    (state,) = i.states
    exact = exact_effects(i, state, chosen)
    record: dict[str, float | None] = {"nodes": len(chosen)}
    for name, found in (("ig", effects), (FASTER, others)):
        estimate = torch.tensor([found[node] for node in chosen])
        record[name] = agreement(estimate.unsqueeze(1), exact)["spearman"]
    return record


def _strongest(i: Analysis, effects: JobNumbers) -> list[Node]:
    ranked = sorted(effects, key=lambda node: -abs(effects[node]))
    return [node for node in ranked if node.kind != "token"][: i.config.nodes]


def _as_act(suite: Suite, site: Site, g: Tensor) -> Act:
    return Act(g[..., :0] if site == EMBED else g @ suite[site].W_dec.T, g)


def _problem(i: Analysis, cost: Cost) -> baseline.Problem:
    return baseline.problem(i.model, i.suite, i.prompts, i.metric, cost)


def _timed(work: Job, reference: JobNumbers, inputs: Analysis, threads: int) -> JobCost:
    device = str(device_of(inputs.model))
    torch.set_num_threads(threads)
    _warm_up(inputs)
    before = devices.forget_peak(device) or peak_memory()
    devices.finish(device)
    cpu, wall = time.process_time(), time.perf_counter()
    numbers = work()
    devices.finish(device)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    held = (devices.peak(device) or peak_memory()) - before
    return JobCost(cpu, wall, held / 2**20, _difference(reference, numbers))


def _difference(ours: JobNumbers, theirs: JobNumbers) -> float:
    """Largest difference over the largest number; what only one side names counts as zero."""
    pairs = [(ours.get(name, 0.0), theirs.get(name, 0.0)) for name in {*ours, *theirs}]
    return max(abs(a - b) for a, b in pairs) / max(abs(a) for a, _ in pairs)


def _check(name: Name, run: JobCost) -> None:
    if not run.difference <= TOLERANCE:
        raise SystemExit(
            f"{' '.join(name)}: numbers are {run.difference:.1e} of the largest away from ours, "
            f"more than {TOLERANCE:.0e}, so times cannot be compared"
        )


def _apart(i: Analysis, work: Callable[[], Any]) -> Any:
    """What `work` returns, done in a fork of this process that ends with it, on the CPU."""
    if device_of(i.model).type != "cpu":
        return work()
    _trim()
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        answer = pickle.loads(ours.recv_bytes())
    except EOFError:
        raise SystemExit("a job ended early; what it said is above") from None
    process.join()
    return answer


def _trim() -> None:
    """Give freed memory back where the C library can: a job that used it would look small."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _answer(work: Callable[[], Any], pipe: Connection) -> None:
    # `send` would hand tensors over in shared memory that ends with this process.
    pipe.send_bytes(pickle.dumps(work()))


def _record(
    chosen: argparse.Namespace,
    inputs: Analysis,
    references: Mapping[str, JobNumbers],
    runs: Mapping[Name, Sequence[JobCost]],
) -> dict[str, Any]:
    return {
        "model": Path(chosen.model).name,
        "dictionaries": [str(site) for site in inputs.suite],
        "features": max(d.n_features for d in inputs.suite.values()),
        "pairs": len(inputs.prompts),
        "tokens": inputs.prompts.clean.tokens.shape[1],
        "nodes": len(references["nodes"]),
        "kept_nodes": chosen.nodes,
        "edges": len(references["edges"]),
        "steps": inputs.config.steps,
        "device": chosen.device,
        "machine": devices.machine(chosen.device, chosen.threads),
        "threads": chosen.threads,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "rounds": chosen.rounds,
        "stages": {
            stage: {
                side: _summary(found, len(inputs.prompts))
                for (where, side), found in runs.items()
                if where == stage
            }
            for stage in STAGES
        },
    }


def _summary(runs: Sequence[JobCost], examples: int) -> dict[str, float]:
    """Medians over the rounds."""
    median = statistics.median
    return {
        "cpu_ms_per_example": round(1e3 * median(r.cpu_seconds for r in runs) / examples, 3),
        "wall_ms_per_example": round(1e3 * median(r.wall_seconds for r in runs) / examples, 3),
        "peak_mb": round(median(r.peak_mb for r in runs), 1),
        "largest_difference": max(r.difference for r in runs),
    }


def table(record: Mapping[str, Any]) -> str:
    """For each stage: our time, the baselines' as multiples of it, memory.

    Time is the CPU's on one thread, which other programs disturb less, else the wall's.
    """
    clock = "cpu" if record["threads"] == 1 and record["device"] == "cpu" else "wall"
    lines = [
        f"| stage | ours, {clock} ms per example | plain / ours | published / ours | "
        "MB beside the model: ours, plain, published |",
        "|---|---|---|---|---|",
    ]
    for stage, sides in record["stages"].items():
        ms = {side: row[f"{clock}_ms_per_example"] for side, row in sides.items()}
        memory = ", ".join(f"{sides[side]['peak_mb']:.0f}" for side in SIDES)
        ratios = " | ".join(f"{ms[cost] / ms['ours']:.1f}" for cost in COSTS)
        lines.append(f"| {stage} | {ms['ours']:.1f} | {ratios} | {memory} |")
        if FASTER in ms:
            ratios = " | ".join(f"{ms[cost] / ms[FASTER]:.1f}" for cost in COSTS)
            memory = f"{sides[FASTER]['peak_mb']:.0f}"
            lines.append(f"| {stage}, {FASTER} | {ms[FASTER]:.1f} | {ratios} | {memory} |")
    exact = ", ".join(f"{name} {value:.3g}" for name, value in record[EXACT].items())
    lines.append(f"\nSpearman's rank correlation with exact effects: {exact}")
    return "\n".join(lines)


def _write(record: Mapping[str, Any]) -> None:
    """Put the record beside those of other models."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    same = ("model", "device")
    kept = [other for other in known if any(other[name] != record[name] for name in same)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*kept, record], indent=1) + "\n")


if __name__ == "__main__":
    main()
