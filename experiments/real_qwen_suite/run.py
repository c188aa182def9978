"""A transcoder in every layer of a real Qwen: how good they are, and what their graphs are worth.

    python -m experiments.real_qwen_suite.run --model MODEL.gguf --dictionaries DIR --six SIX

DIR is a suite of all 24 layers, SIX the one of six layers of `real_qwen_replacement`. The scores
of the replacement graph of each prompt stand beside those by SIX, by the six of DIR's own in the
same layers, and by DIR with decoders dealt anew among the features of a layer, a control that is
as sparse and reads the same. Results go to `results/` beside this file.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from time import process_time
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.methods import discover_by_method
from circuits.graph import rounded, write_json
from circuits.prompts import Prompt, encode_prompts
from hooked_qwen.load import load
from saes.evaluation.baselines import dealt_anew
from saes.suite import Suite, load_suite

RESULTS = Path(__file__).parent / "results"
PROMPTS = {
    "agreement": Prompt(
        clean="The keys to the old cabinet",
        patch="The key to the old cabinet",
        answer=(" are",),
        wrong=(" is",),
    ),
    "two facts": Prompt(
        clean="Q: What is the capital of the country where Hamburg is located?\nA: The capital is",
        patch="Q: What is the capital of the country where Osaka is located?\nA: The capital is",
        answer=(" Berlin",),
        wrong=(" Tokyo",),
    ),
    "greater-than": Prompt(
        clean="The war started in the year 1743, and ended in the year 17",
        patch="The war started in the year 1703, and ended in the year 17",
        answer=("5", "6", "7", "8", "9"),
        wrong=("1", "2", "3"),
    ),
}
SCORES = ("replacement_score", "completeness_score", "clean_metric", "features_traced")
FIGURES = ("l0", "fvu", "kl", "loss_recovered", "dead")
CONTROLLED = ("agreement",)
"Prompts of which the control is made, which takes as long as the graph itself."


def main() -> None:
    """Parse the paths, find the graphs, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--six", required=True)
    parser.add_argument("--prompt", action="append", choices=list(PROMPTS))
    chosen = parser.parse_args()
    model = load(chosen.model)
    every, six = (load_suite(p, mlp="transcoder") for p in (chosen.dictionaries, chosen.six))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "result.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    record["quality"] = quality(every)
    for name in chosen.prompt or PROMPTS:
        suites = {
            "24 layers": every,
            "six layers": _transcoders(six),
            "six of the 24": _same(every, six),
        }
        if name in CONTROLLED:
            suites["24 layers, decoders dealt anew"] = dealt_anew(every)
        for of, suite in suites.items():
            record.setdefault("scores", {}).setdefault(name, {})[of] = scores(
                model, suite, PROMPTS[name]
            )
            write_json(record, file)
            print(name, of, record["scores"][name][of], flush=True)
    print(table(record))


def _transcoders(suite: Suite) -> Suite:
    return suite.exchanging([name for name in suite if not name.startswith("mlp_out")], {})


def _same(every: Suite, six: Suite) -> Suite:
    """Those of a suite that are of the other's layers."""
    return every.exchanging([name for name in every if name not in _transcoders(six)], {})


def scores(model: TransformerBridge, suite: Suite, prompt: Prompt) -> dict[str, Any]:
    """What the replacement graph of a prompt says of itself."""
    start = process_time()
    prompts = encode_prompts([prompt], model.tokenizer, positions="keep")
    analysis = Analysis.of(model, suite, prompts, DiscoverConfig(method="replacement", nodes=100))
    graph = discover_by_method(analysis).graph
    found = {name: graph.graph.get(name) for name in SCORES}
    strongest = sorted(graph.nodes, key=lambda n: -graph.nodes[n].get("influence", 0.0))
    inner = [node for node in strongest if node.kind in ("feature", "error")]
    return found | {
        "features among the hundred": sum(node.kind == "feature" for node in inner),
        "seconds": rounded(process_time() - start),
    }


def quality(suite: Suite) -> dict[str, dict[str, Any]]:
    """What each dictionary's own record says of it."""
    return {
        name: {key: figures[key] for key in FIGURES} for name, figures in suite.metrics().items()
    }


def table(record: Mapping[str, Any]) -> str:
    """Scores by prompt and suite, and the quality by layer."""
    lines = ["| prompt | dictionaries | replacement | completeness |", "|---|---|---|---|"]
    for name, by_suite in record["scores"].items():
        for of, found in by_suite.items():
            two = (found["replacement_score"], found["completeness_score"])
            lines.append(f"| {name} | {of} | {two[0]:.3f} | {two[1]:.3f} |")
    lines += ["", "| layer | L0 | FVU | KL, nats | dead |", "|---|---|---|---|---|"]
    for name, one in sorted(record["quality"].items(), key=lambda pair: _layer(pair[0])):
        cells = f"{one['l0']:.1f} | {one['fvu']:.3f} | {one['kl']:.4f} | {one['dead']:.0%}"
        lines.append(f"| {_layer(name)} | {cells} |")
    return "\n".join(lines)


def _layer(name: str) -> int:
    return int(name.rpartition(".")[2])


if __name__ == "__main__":
    main()
