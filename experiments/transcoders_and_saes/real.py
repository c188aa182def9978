"""Plain transcoders and SAEs of all 24 MLPs of a real Qwen at equal L0: fidelity and circuit size.

    python -m experiments.transcoders_and_saes.real --model MODEL.gguf --text TEXT --work DIR
               [--pairs N] [--task TASK ...] [--only-train]

Both kinds are trained side by side, from the same tokens, in DIR/both unless they are there. A
circuit is as in `run.py`: the strongest nodes by `ig`, all others at the patch, attention runs on.
Results go to `results/real.json`.
"""

import argparse
import json
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from circuits.cli.progress_bars import bars
from circuits.graph import write_json
from experiments.estimators.run import task_prompts
from experiments.transcoders_and_saes.run import FIGURES, RESULTS, circuits_of, size_table
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import Corpus, texts_of
from saes.evaluation.baselines import neurons_inside_mlps, untrained
from saes.sae import sae
from saes.suite import Suite, load_suite
from saes.training.config import TrainConfig
from saes.training.run import RunOptions, train_suite
from transcoders.transcoder import transcoder

K, LAYERS = 32, range(24)
TRAINING = TrainConfig(
    width=2048, tokens=600_000, learning_rate=1e-3, dead_after=50_000, precision="bfloat16"
)
STREAM = StreamConfig(reuse=4)
JUDGED_ON = 1024
"tokens of the held-out beginning of the text"
TASKS = ("agreement_nounpp", "greater_than", "ioi")
SIZES = (20, 50, 100, 200, 500, 1000, 2000)


def main() -> None:
    """Train what is not there, find circuits, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--only-train", action="store_true")
    chosen = parser.parse_args()
    model, out = load(chosen.model), chosen.work / "both"
    if not (out / "suite.json").exists():
        train_both(model, texts_of(chosen.text), out)
    if chosen.only_train:
        return
    kinds = {
        "SAE, 32 on": load_suite(out, mlp="sae"),
        "transcoder, 32 on": load_suite(out, mlp="transcoder"),
    }
    suites = {name: suite.fitting(model) for name, suite in kinds.items()}
    file = RESULTS / "real.json"
    found = json.loads(file.read_text(encoding="utf-8"))["tasks"] if file.exists() else {}
    for task in chosen.task or TASKS:
        prompts = task_prompts(task, chosen.pairs, chosen.model, model)
        controls = {
            "neurons": neurons_inside_mlps(model, suites["SAE, 32 on"]),
            "untrained, 32 on": untrained(suites["transcoder, 32 on"]),
        }
        found[task] = circuits_of(model, prompts, {**suites, **controls}, SIZES)
        write_json({"quality": {k: quality(v) for k, v in suites.items()}, "tasks": found}, file)
        print(task, size_table({task: found[task]}), sep="\n", flush=True)
    print(size_table(found))


def train_both(model: TransformerBridge, texts: Corpus, out: Path) -> None:
    """An SAE of each MLP's output and a plain transcoder of each MLP, from one pass."""
    saes = [sae(Site("mlp_out", layer), k=K) for layer in LAYERS]
    with bars() as report:
        train_suite(
            model,
            [*saes, *(transcoder(layer, k=K) for layer in LAYERS)],
            texts,
            out,
            config=TRAINING,
            stream=STREAM,
            options=RunOptions(resume=True, checkpoint_every=900.0),
            evaluation_tokens=JUDGED_ON,
            report=lambda now: report("training", now.step, now.steps),
            report_stage=report,
        )


def quality(suite: Suite) -> list[dict[str, float]]:
    """What each dictionary's own record says of it, by layer."""
    by_layer = sorted(suite.metrics().items(), key=lambda pair: int(pair[0].rpartition(".")[2]))
    return [{key: figures[key] for key in FIGURES} for _, figures in by_layer]


if __name__ == "__main__":
    main()
