"""A discovery beside the same with every feature in dense tensors: CPU seconds, and the same graph?

    python -m benchmarks.dense_discovery [--widths N ...] [--repeats N] [--work DIR]

The dense code is that of the last commit before features were sparse; it is checked out beside
this tree. Model, prompts and dictionaries are those of `benchmarks.memory`, 40 prompts, with all
dictionaries in memory; the two take turns. At 131,072 features the dense code takes 8 GB.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent.parent
DENSE = "d3acd26bca"
RESULTS = HERE / "benchmarks" / "results" / "dense_discovery.json"
LAYERS, WIDTH, VOCABULARY, TOKENS, PROMPTS = 4, 1024, 4096, 10, 40


def main() -> None:
    """Measure both codes in turn, print the table, write the results."""
    parser = argparse.ArgumentParser("python -m benchmarks.dense_discovery")
    parser.add_argument("--widths", type=int, nargs="+", default=(4096, 131_072))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="dictionaries are kept there")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(*map(Path, chosen.measure))))
        return
    with TemporaryDirectory() as temporary:
        dense = Path(temporary) / "dense"
        _git("worktree", "add", "--detach", str(dense), DENSE)
        try:
            work = chosen.work or Path(temporary)
            rows = [_row(dense, work, width, chosen.repeats) for width in chosen.widths]
        finally:
            _git("worktree", "remove", "--force", str(dense))
    print("| features | sparse, s of CPU | dense, s of CPU | times | largest gap of effects |")
    print("|---|---|---|---|---|")
    for row in rows:
        found = (", ".join(f"{s:.1f}" for s in row[code]) for code in ("sparse_s", "dense_s"))
        print(
            f"| {row['features']:,} | {' | '.join(found)} | {row['times']:.1f} | {row['gap']:.0e} |"
        )
    RESULTS.write_text(json.dumps({"dense": DENSE, "rows": rows}, indent=1) + "\n")


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(HERE), *arguments], check=True, capture_output=True)


def _row(dense: Path, work: Path, features: int, repeats: int) -> dict[str, Any]:
    from benchmarks.memory import write_dictionaries

    folder = work / f"{features}"
    if not folder.exists():
        write_dictionaries(folder, features)
    found: dict[Path, list[dict[str, Any]]] = {HERE: [], dense: []}
    for _ in range(repeats):
        for tree, measured in found.items():
            measured.append(_measured(tree, folder))
    (ours, *_), (theirs, *_) = found.values()
    assert ours["effects"].keys() == theirs["effects"].keys(), "not the same nodes"
    largest = max(map(abs, theirs["effects"].values()))
    sparse_s, dense_s = ([one["cpu_s"] for one in measured] for measured in found.values())
    return {
        "features": features,
        "sparse_s": sparse_s,
        "dense_s": dense_s,
        "times": median(dense_s) / median(sparse_s),
        "gap": max(abs(ours["effects"][n] - e) for n, e in theirs["effects"].items()) / largest,
    }


def _measured(tree: Path, dictionaries: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(tree), str(dictionaries)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=tree)
    return json.loads(done.stdout.splitlines()[-1])


def measure(tree: Path, dictionaries: Path) -> dict[str, Any]:
    """One discovery by the code of `tree`, which is the first place that is looked in.

    The model and prompts of `benchmarks.memory` are made here once more: that module cannot be
    imported beside the dense code, which has no `circuits.analysis`.
    """
    sys.path[0] = str(tree)
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from circuits.prompts import EncodedPrompts, Prompt
    from hooked_qwen.load import hook
    from hooked_qwen.tokens import Batch
    from saes.suite import load_suite

    torch.set_num_threads(1)
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
    model = hook(Qwen3ForCausalLM(config), name="random")
    generator = torch.Generator().manual_seed(PROMPTS)
    clean = torch.randint(VOCABULARY, (PROMPTS, TOKENS), generator=generator)
    patch = clean.clone()
    patch[:, 2] = torch.randint(VOCABULARY, (PROMPTS,), generator=generator)
    answers = torch.randint(VOCABULARY, (PROMPTS, 2), generator=generator).tolist()
    mask = torch.ones_like(clean, dtype=torch.bool)
    prompt = Prompt(clean="", patch="", answer=("right",), wrong=("wrong",), where="random")
    prompts = EncodedPrompts(
        prompts=(prompt,) * PROMPTS,
        clean=Batch(tokens=clean, mask=mask),
        patch=Batch(tokens=patch, mask=mask),
        answer_ids=tuple((right,) for right, _ in answers),
        wrong_ids=tuple((wrong,) for _, wrong in answers),
        columns=tuple(f"token {i}" for i in range(TOKENS)),
    )
    suite = load_suite(dictionaries)
    start = time.process_time()
    graph = _discover(model, suite, prompts)
    effects = {str(node): effect for node, effect in graph.nodes(data="effect") if effect}
    return {"cpu_s": time.process_time() - start, "effects": effects}


def _discover(model: Any, suite: Any, prompts: Any) -> Any:
    """By the code of either tree."""
    from circuits.discovery import sparse_feature

    try:
        from circuits.analysis import Analysis
        from circuits.discovery.config import DiscoverConfig
    except ImportError:
        from circuits.discovery.ranking import DiscoverConfig  # type: ignore

        asked = DiscoverConfig(steps=4, nodes=50)
        return sparse_feature.discover(model, suite, prompts, config=asked).graph  # type: ignore
    asked = DiscoverConfig(steps=4, nodes=50)
    return sparse_feature.discover(Analysis.of(model, suite, prompts, asked)).graph


if __name__ == "__main__":
    main()
