"""What one prediction of a real Qwen is made of: a prompt with no counterpart and no answer given.

    python -m experiments.real_qwen_lone_prompt.run --model MODEL.gguf --dictionaries DIR --work DIR

Nodes are moved to zero, and the metric is of the model's own answers. The figure, the strongest
nodes and the check against ablation go to `results/` beside this file.
"""

import argparse
import json
import shutil
from pathlib import Path

from circuits.cli.progress_bars import bars
from circuits.discovery.config import DiscoverConfig
from circuits.graph import ordered, rounded, write_json
from circuits.runs.discover_run import discover_run
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import one_prompt
from circuits.runs.render_run import render_run
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig

RESULTS = Path(__file__).parent / "results"
PROMPT = "The capital of France is"
NAMED = 25


def main() -> None:
    """Parse the paths, find the circuit, check it, keep what the README tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    prompts = chosen.work / "prompts.jsonl"
    inputs = Inputs.resolved(chosen.model, chosen.dictionaries, prompts, "transcoder")
    with bars() as report:
        discover_run(
            inputs,
            chosen.work,
            config=DiscoverConfig(reference="zero"),
            given=[one_prompt(PROMPT, None, (), ())],
            force=True,
            report=report,
        )
        record = verify_run(chosen.work, config=VerifyConfig(), report=report)
    render_run(chosen.work, ["svg"], NAMED)
    found = read_run(chosen.work)
    manifest = json.loads((chosen.work / "manifest.json").read_text(encoding="utf-8"))
    RESULTS.mkdir(exist_ok=True)
    fields = ("label", "token", "effect", "exact", "activation")
    kept = {
        "prompt": PROMPT,
        "clean": found.graph.graph["clean_metric"],
        "norm_outliers": manifest["norm_outliers"],
        "nodes": [
            {"id": str(n), **{k: found.graph.nodes[n][k] for k in fields}}
            for n in ordered(found.graph)[:NAMED]
        ],
        "agreement": {k: rounded(record["nodes"][k]) for k in ("spearman", "slope")},
        "each_adds": record["each_adds"],
        "curves": record["curves"],
    }
    write_json(kept, RESULTS / "result.json")
    shutil.copyfile(chosen.work / "graph.svg", RESULTS / "graph.svg")


if __name__ == "__main__":
    main()
