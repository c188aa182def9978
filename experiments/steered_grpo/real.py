"""Does a rollout steered toward Chinese teach a real Qwen to go on in English, beside GRPO alone?

    python -m experiments.steered_grpo.real --model MODEL.gguf --dictionaries DICTS \
        --english EN.jsonl --chinese ZH.jsonl --work DIR [--steps N] [--rate R] \
        [--seeds N] [--threads 1]

Prompts, texts and features are those of `experiments.sasft`: English prompts with a Chinese
sentence in them, half of them trained on, and the feature of layer 17 that differs most between
Chinese and English paragraphs of one manual. The rewards are those of `cjk`: less Chinese is
better. The records go to `results/` beside this file.
"""

import json

from circuits import scope
from circuits.graph import write_json
from circuits.runs.trained import TrainedConfig
from experiments.inputs import arguments
from experiments.sasft.run import prepared, searched, told
from experiments.steered_grpo.run import RESULTS
from hooked_qwen.threads import set_threads
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.tuned_model import WriteConfig

STEPS, GROUP, TOKENS, SAMPLES = 12, 4, 20, 4
RATE = 5e-4


def main() -> None:
    """Parse the paths, take the texts and the feature, train by each seed."""
    parser = arguments(__doc__, "english", "chinese")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        set_threads(given.threads)
    sources = prepared(given.english, given.chinese, given.work)
    found = searched(given.dictionaries, given.model, sources, given.work)
    feature = json.loads(found.read_text(encoding="utf-8"))["found"][0]["feature"]
    for seed in given.seeds:
        name = f"real-{seed}" if given.rate == RATE else f"real-{seed}-{given.rate:g}"
        out = given.work / name
        record = scope.reinforce(
            given.dictionaries,
            given.model,
            feature=feature,
            prompts=[str(sources["prompts"])],
            held_out=[str(sources["english"]), str(sources["chinese"])],
            behaviour="cjk",
            trained=TrainedConfig(rank=8, longest=32),
            training=FineTuneConfig(steps=given.steps, learning_rate=given.rate, seed=seed),
            rollouts={"group": GROUP, "prompts": 1, "tokens": TOKENS},
            write=WriteConfig(tokens=TOKENS, samples=SAMPLES, seed=seed),
            out=out,
            report=lambda what, done, total, note="": print(what, done, total, note, flush=True),
        )
        write_json(told(record), RESULTS / f"{name}.json")
        figure = (out / "tune.svg").read_text(encoding="utf-8")
        (RESULTS / f"{name}.svg").write_text(figure, encoding="utf-8")


if __name__ == "__main__":
    main()
