"""Does a rollout steered toward repetition teach a model to repeat itself less than GRPO alone?

    python -m experiments.steered_grpo.run --work DIR

On the bundled model, whose language has lists that are said again. The feature is one that is on
at the commas of lists; added at its largest activation, it makes the model write commas for ever.
LoRA is trained on the beginnings of texts that repeat themselves, by GRPO against repetition: with
one rollout of each group steered, with none, and with one steered by a random feature, moved as
far. Two seeds. The table goes to `results/` beside this file.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from circuits import scope
from circuits.graph import write_json
from circuits.runs.trained import TrainedConfig
from hooked_qwen.bundled import language
from hooked_qwen.load import load_tokenizer
from saes.scope.behaviour import pieces_of
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.text_scores import repetition
from saes.scope.tuned_model import WriteConfig

RESULTS = Path(__file__).parent / "results"
FEATURE = "resid_post.3/168"
SEEDS = (0, 1)
PROMPTS, WORDS = 48, 12
CLEAN = 60
REPEATS = 0.2
"Texts that prompts are made of repeat at least so much."
TOKENS = 32


def main() -> None:
    """Parse the path, make the texts, train by each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, type=Path)
    work = parser.parse_args().work
    sources = prepared(work)
    RESULTS.mkdir(exist_ok=True)
    for seed in SEEDS:
        out = work / f"seed-{seed}"
        record = scope.reinforce(
            "bundled",
            feature=FEATURE,
            prompts=[str(sources["prompts"])],
            held_out=[str(sources["clean"])],
            behaviour="repetition",
            trained=TrainedConfig(rank=8, longest=64, texts=200),
            training=FineTuneConfig(steps=25, learning_rate=1e-3, seed=seed),
            rollouts={"group": 8, "prompts": 1, "tokens": TOKENS},
            write=WriteConfig(tokens=TOKENS, samples=4, seed=seed),
            out=out,
            report=lambda what, done, total, note="": print(what, done, total, note, flush=True),
        )
        write_json(told(record), RESULTS / f"seed-{seed}.json")
        figure = (out / "tune.svg").read_text(encoding="utf-8")
        (RESULTS / f"seed-{seed}.svg").write_text(figure, encoding="utf-8")


def prepared(work: Path) -> dict[str, Path]:
    """Prompts that begin repeating texts, and clean texts; texts with the features' commas too."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer("bundled")
    texts = list(islice(language.documents(seed=11), 1500))
    shares = [repetition(pieces_of(tokenizer, tokenizer(text)["input_ids"])) for text in texts]
    repeating = [t for t, share in zip(texts, shares, strict=True) if share > REPEATS]
    parts = {
        "prompts": [" ".join(text.split()[:WORDS]) for text in repeating[:PROMPTS]],
        "clean": repeating[PROMPTS : PROMPTS + CLEAN],
    }
    files = {}
    for name, chosen in parts.items():
        files[name] = work / f"{name}.jsonl"
        lines = (json.dumps({"text": text}) for text in chosen)
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def told(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what names files of this machine."""
    return {key: value for key, value in record.items() if key != "made_from"}


if __name__ == "__main__":
    main()
