"""Time and memory of discover, verify and ablate on a card, beside what was counted before.

    python -m benchmarks.large_model FOLDER --device cuda [--memory GB] [--pairs N] [--tokens N]
                                     [--quick]

FOLDER holds `model` and `dictionaries`, as `python -m benchmarks.random_model` writes them; the
model runs in bfloat16, pairs of prompts are random tokens that differ in the third. Memory is what
tensors take on the card at most, with the model in it, in GB; `counted` is what `circuits estimate`
counts for the discovery before anything is loaded.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from benchmarks import devices
from benchmarks.memory import random_prompts
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.graph import ordered
from circuits.runs.needs import DiscoverySize, memory_of
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.cost import ModelCost
from hooked_qwen.load import load
from hooked_qwen.placement import Placement
from saes.formats.shapes import shape_of
from saes.suite import find, load_suite

RESULTS = Path(__file__).parent / "results" / "large_model.json"


def main() -> None:
    """Run the three verbs, print the row; keep it unless `--quick`."""
    parser = argparse.ArgumentParser("python -m benchmarks.large_model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--memory", type=float, help="GB for dictionaries and states")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    chosen = parser.parse_args()
    row = measure(chosen)
    print(json.dumps(row, indent=1))
    if not chosen.quick:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*known, row], indent=1) + "\n")


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds and GB of loading and of each verb, which each begin anew, as commands do."""
    folder, device = chosen.folder, chosen.device
    config = DiscoverConfig(estimator="ig")
    counted = _counted(chosen, config)
    start = time.perf_counter()
    model = load(folder / "model", dtype=torch.bfloat16, device=device)
    suite = load_suite(folder / "dictionaries", memory=chosen.memory).fitting(model)
    devices.finish(device)
    row: dict[str, Any] = {
        "machine": devices.machine(device, torch.get_num_threads()),
        "torch": torch.__version__,
        "layers": model.cfg.n_layers,
        "d": model.cfg.d_model,
        "dictionaries": len(suite),
        "pairs": chosen.pairs,
        "tokens": chosen.tokens,
        "memory": chosen.memory,
        "counted_gb": round(counted / 1e9, 2),
        "loading_s": round(time.perf_counter() - start, 2),
    }
    prompts = random_prompts(chosen.pairs, chosen.tokens)
    analysis = partial(Analysis.of, model, suite, prompts, config)
    found = _timed(row, "discover", device, lambda: discover(analysis()))
    graph, ranking = found.graph, found.ranking
    quick = VerifyConfig(level="quick")
    _timed(row, "verify", device, lambda: verify(analysis(), graph, ranking, config=quick))
    features = [node for node in ordered(graph) if node.kind == "feature"]
    edit = Ablation(ablated=tuple(features[:10]), to="mean")
    _timed(row, "ablate", device, lambda: ablate(analysis(), edit, ranking))
    return row | {"nodes": len(graph), "edges": graph.number_of_edges()}


def _timed(row: dict[str, Any], name: str, device: str, work: Callable[[], Any]) -> Any:
    devices.forget_peak(device)
    start = time.perf_counter()
    result = work()
    devices.finish(device)
    row[f"{name}_s"] = round(time.perf_counter() - start, 2)
    row[f"{name}_gb"] = round(devices.peak(device) / 1e9, 2)
    print(name, row[f"{name}_s"], row[f"{name}_gb"], flush=True)
    return result


def _counted(chosen: argparse.Namespace, config: DiscoverConfig) -> float:
    """Bytes on the device, from the model's configuration and the dictionaries' files."""
    placement = Placement(device=chosen.device, dtype="bfloat16", memory=chosen.memory)
    published = AutoConfig.from_pretrained(chosen.folder / "model")
    model = ModelCost(published, placement, name="random")
    entries = find(chosen.folder / "dictionaries").entries
    shapes = [shape_of(entry, model.d_model) for entry in entries]
    # A prompt and its patch are the same up to the third token.
    task = DiscoverySize(prompts=chosen.pairs, tokens=chosen.tokens, first=2, config=config)
    return memory_of(model, shapes, task, chosen.memory).total


if __name__ == "__main__":
    main()
