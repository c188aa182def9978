"""Are dictionaries that learned from a model in bfloat16 as good on the model in float32?

    python -m experiments.harvest_precision.run --model MODEL.gguf --text TEXT --work DIR

Each seed trains the same autoencoders twice, on activations of the model in float32 and in
bfloat16; all are judged on the model in float32. Suites go to DIR/{float32,bfloat16}-SEED; what is
there already is not made again. The table goes to `results/` beside this file.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import write_json
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import Corpus, texts_of
from hooked_qwen.threads import fit_threads
from saes.evaluation.metrics import evaluate, held_out_blocks
from saes.sae import sae
from saes.suite import Suite, load_suite
from saes.training.config import TrainConfig
from saes.training.harvest import Harvest
from saes.training.run import RunOptions, train_suite

RESULTS = Path(__file__).parent / "results"
SITES = [Site(kind, layer) for kind in ("mlp_out", "resid_post") for layer in (2, 22)]
SEEDS = (0, 1)
HARVESTS: tuple[Harvest, ...] = ("float32", "bfloat16")
STREAM = StreamConfig(reuse=4)
TRAINING = TrainConfig(
    width=2048, tokens=120_000, learning_rate=1e-3, dead_after=50_000, precision="bfloat16"
)
K = 32
JUDGED_ON, SEEN = 1024, 128
"tokens of held-out text that all are judged on here, and each by itself when it is trained"
ALIKE = 0.9
"A feature is found again where another dictionary has a direction of this cosine."


def main() -> None:
    """Parse the paths, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--work", required=True, type=Path)
    arguments = parser.parse_args()
    model, texts = load(arguments.model), texts_of(arguments.text)
    for seed in SEEDS:
        for harvest in HARVESTS:
            train_one(model, texts, arguments.work / f"{harvest}-{seed}", harvest, seed)
    RESULTS.mkdir(exist_ok=True)
    write_json(compared(model, texts, arguments.work), RESULTS / "quality.json")


def train_one(
    model: TransformerBridge, texts: Corpus, out: Path, harvest: Harvest, seed: int
) -> None:
    """The autoencoders of all sites from one pass over the text."""
    if (out / "suite.json").exists():
        return
    fit_threads(model, width=TRAINING.width)
    train_suite(
        model,
        [sae(site, k=K) for site in SITES],
        texts,
        out,
        config=replace(TRAINING, seed=seed),
        stream=replace(STREAM, seed=seed),
        options=RunOptions(resume=True),
        harvest=harvest,
        evaluation_tokens=SEEN,
        report=lambda now: print(out.name, now.step, now.steps, flush=True),
    )


def compared(model: TransformerBridge, texts: Corpus, work: Path) -> dict[str, Any]:
    """By site: each suite's quality, and how many features two of them share."""
    blocks = held_out_blocks(texts(), model, tokens=JUDGED_ON)
    suites = {f"{h}-{s}": load_suite(work / f"{h}-{s}") for h in HARVESTS for s in SEEDS}
    found: dict[str, Any] = {}
    for site in map(str, SITES):
        qualities = {name: _quality(model, suite, site, blocks) for name, suite in suites.items()}
        found[site] = {
            "quality": qualities,
            "found_again": {
                "one seed, other precision": _shares(
                    suites, site, [(f"float32-{s}", f"bfloat16-{s}") for s in SEEDS]
                ),
                "one precision, other seed": _shares(
                    suites, site, [tuple(f"{h}-{s}" for s in SEEDS) for h in HARVESTS]
                ),
            },
        }
    return found


def _quality(
    model: TransformerBridge, suite: Suite, site: str, blocks: torch.Tensor
) -> dict[str, Any]:
    (one,) = evaluate(model, [suite[site]], blocks)
    return {
        "fvu": one.fvu,
        "fvu_interval": one.intervals["fvu"],
        "kl": one.kl,
        "kl_interval": one.intervals["kl"],
        "l0": one.l0,
        "dead": one.dead,
    }


def _shares(suites: dict[str, Suite], site: str, pairs: list[tuple[str, ...]]) -> list[float]:
    """Of the features of the first of each pair, the share that the second has too."""
    shares = []
    for first, second in pairs:
        a, b = (
            torch.nn.functional.normalize(suites[name][site].W_dec, dim=-1)
            for name in (first, second)
        )
        shares.append(float(((a @ b.T).amax(-1) >= ALIKE).float().mean()))
    return shares


if __name__ == "__main__":
    main()
