"""Make the bundled model from scratch: tokenizer, text, training, scores, card.

python -m experiments.bundled_model.run
"""

import json
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
)

from experiments.bundled_model.card import card
from experiments.bundled_model.corpus import token_rows
from experiments.bundled_model.score import score_tasks
from experiments.bundled_model.tokenizer import save_tokenizer, train_tokenizer
from experiments.bundled_model.train import Recipe, fit, new_model
from hooked_qwen.bundled import PATH
from hooked_qwen.bundled.language import documents, rounds

RESULTS = Path(__file__).parent / "results"
TEXT_SEED = 2026


def main(recipe: Recipe) -> None:
    """Train with the recipe and put the result in place of the bundled model."""
    start = time.perf_counter()
    torch.set_num_threads(recipe.threads)
    tokenizer = train_tokenizer()
    model = new_model(recipe, tokenizer.get_vocab_size())
    for stage, source in ((recipe.rounds, rounds), (recipe.text, documents)):
        rows = token_rows(tokenizer, source(TEXT_SEED), tokens=stage.tokens, length=stage.length)
        fit(model, rows, stage, recipe, lambda: glance(model, tokenizer))
    with replacing(PATH) as folder:
        model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0)
        model.bfloat16().save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
        save_tokenizer(tokenizer, folder)
        report = {
            "recipe": asdict(recipe),
            "text_seed": TEXT_SEED,
            "parameters": model.num_parameters(),
            "seconds": round(time.perf_counter() - start),
            "families": evaluate(folder),
        }
        (folder / "README.md").write_text(card(report))
    RESULTS.mkdir(exist_ok=True)
    write_whole(RESULTS / "accuracy.json", json.dumps(report, indent=2) + "\n")


def glance(model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
    """Print a rough held-out accuracy of each family while training goes on."""
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    scores = score_tasks(model, fast, n=60)
    model.train()
    print("  ".join(f"{task} {score.accuracy:.0%}" for task, score in scores.items()), flush=True)


def evaluate(folder: Path) -> dict[str, dict[str, float]]:
    """Held-out scores of the model as saved: its bfloat16 weights, computed in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scores = score_tasks(model, AutoTokenizer.from_pretrained(folder))
    for task, score in scores.items():
        print(f"{task:20} {score.accuracy:6.1%} {score.top_1:6.1%}  n={score.n}", flush=True)
    return {task: asdict(score) for task, score in scores.items()}


@contextmanager
def replacing(folder: Path) -> Generator[Path]:
    """A folder to write in, which takes the place of `folder` only if the block succeeds."""
    fresh, old = folder.with_name("model.partial"), folder.with_name("model.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside `path`, then rename it, so that `path` is never half written."""
    beside = path.with_suffix(".partial")
    beside.write_text(text)
    beside.replace(path)


if __name__ == "__main__":
    main(Recipe())
