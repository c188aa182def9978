"""Memory and time of discover, verify and ablate as dictionaries grow wider and prompts more.

    python -m benchmarks.memory [--widths N ...] [--prompts N ...] [--verbs VERB ...] [--work DIR]
                                [--quick]

A random Qwen3 (4 layers, d 1,024) with one TopK dictionary (k 50, negative features kept, the shape
of Qwen-Scope's) for each layer's stream, on random pairs of prompts of ten tokens that differ in
one. Each case runs in a process of its own, with so little memory that one dictionary is held,
whatever its size, and with the same room for states at every width. What is told is the peak beyond
the model and one dictionary, in MB, and the seconds of each verb. In the file of results, what was
not measured again stays.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.random_model import random_dictionary
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import graph_left
from circuits.graph import ordered
from circuits.prompts import EncodedPrompts, Prompt
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.load import hook
from hooked_qwen.tokens import Batch
from saes.formats import ours
from saes.suite import load_suite

RESULTS = Path(__file__).parent / "results" / "memory.json"
MEMORY = 0.05
"GB for dictionaries and states: one of 4,096 features and a half, and 12.5 MB of states."
LAYERS, WIDTH, VOCABULARY, TOKENS, K = 4, 1024, 4096, 10, 50
WIDTHS, PROMPTS = (4096, 32_768, 131_072), (40, 400)
VERBS = ("discover", "verify", "ablate")
FULL = "verify-full"
"With every size and control, each random row drawn once: asked for by `--verbs`, as it takes long."
RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Case:
    """One process."""

    features: int
    prompts: int
    dictionaries: str
    verbs: tuple[str, ...] = VERBS


def main() -> None:
    """Run every case, print the table; write the results unless `--quick`."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    parser.add_argument("--verbs", choices=(*VERBS, FULL), nargs="+", default=VERBS)
    parser.add_argument("--work", type=Path, help="dictionaries are kept there")
    parser.add_argument("--quick", action="store_true", help="small; nothing is written")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        for row in measure(Case(**json.loads(chosen.case))):
            print(json.dumps(row), flush=True)
        return
    if not RESET.exists():
        raise SystemExit("peak memory is measured on Linux only")
    if chosen.quick:
        chosen.widths, chosen.prompts = [1024, 2048], [8]
    with TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        verbs = tuple(chosen.verbs)
        rows: list[dict[str, Any]] = []
        for features, prompts in product(chosen.widths, chosen.prompts):
            row: dict[str, Any] = {}
            for row in _rows(work, features, prompts, verbs):
                if not chosen.quick:
                    keep(row)
            rows.append(row)
    print(table(rows, verbs))


def keep(row: dict[str, Any]) -> None:
    """Put the row into the file of results, verb by verb in the place of the same case."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    by_case = {(row["features"], row["prompts"]): row for row in found["rows"]}
    case = row["features"], row["prompts"]
    by_case[case] = by_case.get(case, {}) | row
    found |= {"torch": torch.__version__, "rows": [by_case[case] for case in sorted(by_case)]}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _rows(
    work: Path, features: int, prompts: int, verbs: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """What is measured of one case so far, after each verb."""
    folder = work / f"{features}"
    if not folder.exists():
        write_dictionaries(folder, features)
    case = json.dumps(asdict(Case(features, prompts, str(folder), verbs)))
    command = [sys.executable, "-m", "benchmarks.memory", "--case", case]
    # Freed memory goes back to the system, so that the peak is what was held.
    tuned = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=tuned) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            yield json.loads(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def table(rows: list[dict[str, Any]], verbs: tuple[str, ...]) -> str:
    """A line for each case."""
    heads = [f"{verb}, {unit}" for verb in verbs for unit in ("MB", "s")]
    lines = [
        f"| features | prompts | {' | '.join(heads)} |",
        "|" + "---|" * (len(heads) + 2),
    ]
    for row in rows:
        cells = [f"{row[verb][unit]:,.0f}" for verb in verbs for unit in ("mb", "s")]
        lines.append(f"| {row['features']:,} | {row['prompts']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_dictionaries(folder: Path, features: int) -> None:
    """Random dictionaries with unit rows, the encoder the decoder's transpose."""
    made = (random_dictionary(features, WIDTH, layer, K) for layer in range(LAYERS))
    ours.save(made, folder)


def random_model() -> Any:
    """A Qwen3 of random weights without a tokenizer."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        max_position_embeddings=64,
    )
    return hook(Qwen3ForCausalLM(config), name="random")


def random_prompts(n: int, tokens: int = TOKENS) -> EncodedPrompts:
    """Pairs that differ in their third token; the answers are two tokens at random."""
    generator = torch.Generator().manual_seed(n)
    clean = torch.randint(VOCABULARY, (n, tokens), generator=generator)
    patch = clean.clone()
    patch[:, 2] = torch.randint(VOCABULARY, (n,), generator=generator)
    answers = torch.randint(VOCABULARY, (n, 2), generator=generator).tolist()
    mask = torch.ones_like(clean, dtype=torch.bool)
    prompt = Prompt(clean="", patch="", answer=("right",), wrong=("wrong",), where="random")
    return EncodedPrompts(
        prompts=(prompt,) * n,
        clean=Batch(tokens=clean, mask=mask),
        patch=Batch(tokens=patch, mask=mask),
        answer_ids=tuple((right,) for right, _ in answers),
        wrong_ids=tuple((wrong,) for _, wrong in answers),
        columns=tuple(f"token {i}" for i in range(tokens)),
    )


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """Peak and time of each verb so far, after each."""
    torch.set_num_threads(1)
    model, prompts = random_model(), random_prompts(case.prompts)
    one = 2 * 4 * case.features * WIDTH
    suite = load_suite(case.dictionaries, memory=MEMORY)
    config = DiscoverConfig(steps=4, nodes=50)
    before = psutil.Process().memory_info().rss
    found: dict[str, Any] = {}

    def timed(work: Callable[[], Any]) -> dict[str, float]:
        RESET.write_text("5", encoding="utf-8")
        start = time.perf_counter()
        found["last"] = work()
        peak = _peak()
        return {"mb": (peak - before - one) / 2**20, "s": time.perf_counter() - start}

    rows: dict[str, Any] = {"features": case.features, "prompts": case.prompts}
    # A new analysis for each verb, as for each command: none has the states of another.
    analysis = partial(Analysis.of, model, suite, prompts, config)
    rows["discover"] = timed(lambda: discover(analysis()))
    yield rows
    discovery = found["last"]
    quick, full = VerifyConfig(level="quick"), VerifyConfig(level="full", draws=1)
    graph, ranking = discovery.graph, discovery.ranking
    if "verify" in case.verbs:
        rows["verify"] = timed(lambda: verify(analysis(), graph, ranking, config=quick))
        yield rows
    if FULL in case.verbs:
        rows[FULL] = timed(lambda: verify(analysis(), graph, ranking, config=full))
        yield rows
    edit = Ablation(ablated=tuple(n for n in ordered(graph) if n.kind == "feature")[:10], to="mean")

    def cut_out() -> None:
        opened = analysis()
        ablate(opened, edit, ranking)
        graph_left(opened, edit, graph)

    if "ablate" in case.verbs:
        rows["ablate"] = timed(cut_out)
        yield rows


def _peak() -> int:
    """The largest resident memory since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
