"""Four tasks in a real Qwen: the circuit, its check against ablation, and every control.

    python -m experiments.real_qwen_tasks.run --model MODEL.gguf --dictionaries DIR --work DIR
                                              [--task TASK ...]

DIR/TASK/ holds the prompts (train and test share no content word), the run and its page; what is
small enough to keep goes to `results/` beside this file, with the table of the README.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.baseline_values import BaselineValue
from circuits.cli.progress_bars import bars
from circuits.discovery.config import DiscoverConfig
from circuits.graph import Node, ordered, rounded, write_json
from circuits.render.charts.curves import curves_figure
from circuits.runs.discover_run import discover_run
from circuits.runs.finished_run import Run, read_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.render_run import render_run
from circuits.runs.verify_run import verify_run
from circuits.verification.faithfulness_curves import Scale, curves, held_out_curves
from circuits.verification.verify import VerifyConfig
from hooked_qwen.families import Split
from hooked_qwen.progress import Report
from hooked_qwen.tokens import token_strings

RESULTS = Path(__file__).parent / "results"
TASKS = ("agreement_nounpp", "ioi", "greater_than", "brackets")
PAIRS = 30
DISCOVER = DiscoverConfig(estimator="ig-inputs")
SHOWN = (10, 20, 50, 100, 200, 1000)
NAMED = 12
ABLATED_TO: tuple[BaselineValue, ...] = ("patch", "mean")


def main() -> None:
    """Parse the paths and run every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS)
    chosen = parser.parse_args()
    for task in chosen.task or TASKS:
        run(task, chosen.model, chosen.dictionaries, chosen.work / task)
        kept = json.loads((RESULTS / f"{task}.json").read_text(encoding="utf-8"))
        print(*(table(kept, to) for to in ABLATED_TO), sep="\n")


def run(task: str, model: str, dictionaries: str, work: Path) -> None:
    """Prompts, discovery, verification with the held-out split, figures."""
    work.mkdir(parents=True, exist_ok=True)
    files: dict[Split, Path] = {"train": work / "train.jsonl", "test": work / "test.jsonl"}
    for split, file in files.items():
        make_prompts(task, PAIRS, split=split, seed=0, model=model, out=file)
    inputs = Inputs.resolved(model, dictionaries, files["train"], "transcoder")
    out = work / "run"
    with bars() as report:
        discover_run(inputs, out, config=DISCOVER, force=True, report=report)
        records: dict[BaselineValue, dict[str, Any]] = {
            to: verify(out, to, files["test"], report) for to in ABLATED_TO
        }
    render_run(out, ["svg"], 25)
    keep(task, out, records)


def verify(out: Path, to: BaselineValue, held_out: Path, report: Report) -> dict[str, Any]:
    """The whole record for the last of `ABLATED_TO`, which stays in the run; for others the curves.

    Nodes and edges are measured by moving them to the patch, whatever sets are ablated to.
    """
    if to == ABLATED_TO[-1]:
        config = VerifyConfig(to=to, draws=1)
        return verify_run(out, config=config, held_out=held_out, report=report)
    found = read_run(out)
    loaded = found.open()
    analysis = loaded.analysis
    scales = [Scale.of(a, to) for a in (analysis, analysis.on(loaded.others(held_out)))]
    options = {"level": "full", "seed": 0, "report": report}
    return {
        "metric": found.config.metric,
        "curves": curves(scales[0], found.ranking, draws=1, **options),
        "held_out": held_out_curves(scales[1], found.ranking, **options),
    }


def keep(task: str, out: Path, records: dict[BaselineValue, dict[str, Any]]) -> None:
    """Copy to `results/` what the README tells."""
    record = records[ABLATED_TO[-1]]
    RESULTS.mkdir(exist_ok=True)
    found = read_run(out)
    strongest = [n for n in ordered(found.graph) if n.kind == "feature"][:NAMED]
    fires = by_changed_token(found, strongest)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    kept = {
        "task": task,
        "n_prompts": found.graph.graph["n_prompts"],
        "clean": found.graph.graph["clean_metric"],
        "patch": found.graph.graph["patch_metric"],
        "accuracy": found.graph.graph["accuracy"],
        "config": manifest["config"],
        "versions": manifest["versions"],
        "features": [
            {"id": str(n), **_about(found.graph.nodes[n]), "by_changed_token": fires[n]}
            for n in strongest
        ],
        "nodes": {k: v for k, v in record["nodes"].items() if k != "points"},
        "pool": record["pool"],
        "edges": {k: v for k, v in record["edges"].items() if k != "points"},
        "each_adds": record["each_adds"],
        "curves": {to: r["curves"] for to, r in records.items()},
        "held_out": {to: r["held_out"] for to, r in records.items()},
    }
    write_json(kept, RESULTS / f"{task}.json")
    shutil.copyfile(out / "graph.svg", RESULTS / f"{task}-graph.svg")
    for to, verified in records.items():
        curves_figure(verified, RESULTS / f"{task}-{to}.svg")


def _about(data: dict[str, Any]) -> dict[str, Any]:
    return {k: data[k] for k in ("label", "token", "effect", "exact", "activation")}


def by_changed_token(run: Run, nodes: Sequence[Node]) -> dict[Node, dict[str, float]]:
    """Mean activation of each feature by the first token in which clean and patch differ.

    Over clean and patch prompts together, at the feature's own position.
    """
    assert (run.config.positions, run.config.reference) == ("keep", "patch")
    analysis = run.open().analysis
    model, prompts = analysis.model, analysis.prompts
    assert prompts.patch is not None, "these tasks have patches"
    at = (prompts.clean.tokens != prompts.patch.tokens).int().argmax(1, keepdim=True)
    sides = [side.tokens.gather(1, at).squeeze(1) for side in (prompts.clean, prompts.patch)]
    texts = token_strings(model.tokenizer, torch.cat(sides).tolist())
    found = {}
    for node in nodes:
        own = [state.features[node.site] for state in analysis.states]
        both = [*(nodes.f for nodes in own), *(nodes.reference for nodes in own)]
        values = torch.cat([f.of_each([int(node.feature)])[0, :, node.position] for f in both])
        means = {t: values[[text == t for text in texts]].mean() for t in set(texts)}
        ranked = sorted(means.items(), key=lambda pair: (-float(pair[1]), pair[0]))
        found[node] = {text: rounded(float(mean)) for text, mean in ranked}
    return found


def table(kept: dict[str, Any], to: BaselineValue) -> str:
    """Faithfulness of the circuit and its controls, as the README shows it."""
    curves, held_out = kept["curves"][to], kept["held_out"][to]
    sizes = [s for s in curves["sizes"] if s in SHOWN]
    lines = [f"| ablated to {to} | {' | '.join(map(str, sizes))} | CPR | CMD |"]
    lines.append("|" + "---|" * (len(sizes) + 3))
    for name, row in curves["rows"].items():
        values = dict(zip(curves["sizes"], row["faithfulness"], strict=True))
        area = curves["areas"][name]
        cells = [*(values[s] for s in sizes), area["cpr"], area["cmd"]]
        lines.append(f"| {name} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")
    for name, row in held_out["rows"].items():
        values = dict(zip(held_out["sizes"], row["faithfulness"], strict=True))
        cells = [f"{values[s]:.2f}" if s in values else "–" for s in sizes]
        lines.append(f"| {name}, held out | " + " | ".join(cells) + " | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
