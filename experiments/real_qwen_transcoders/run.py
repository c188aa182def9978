"""SAE, transcoder or skip transcoder: which stands in best for an MLP, at equal L0?

    python -m experiments.real_qwen_transcoders.run --model MODEL.gguf --text TEXT --work DIR

Activations are cached in DIR/cache, dictionaries go to DIR/{sae,transcoder,skip}; what is there
already is not made again. The table goes to `results/` beside this file.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.cli.progress_bars import bars
from circuits.graph import write_json
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import Corpus, texts_of
from saes.dictionary import DictionarySpec
from saes.evaluation.baselines import evaluate_with_baselines
from saes.evaluation.metrics import held_out_blocks
from saes.sae import sae
from saes.suite import find
from saes.training.config import TrainConfig
from saes.training.run import RunOptions
from saes.training.train import cache_activations, train
from transcoders.transcoder import transcoder

RESULTS = Path(__file__).parent / "results"
LAYERS = (4, 12, 20)
K = 32
READ = 100_000
"tokens that the model reads"
STREAM = StreamConfig(reuse=4)
TRAINING = TrainConfig(
    width=4096, tokens=390_000, learning_rate=1e-3, dead_after=50_000, precision="bfloat16"
)
JUDGED_ON, CONTROLS_ON = 2048, 8192
"tokens of the held-out beginning of the text, and of what follows"
KINDS: dict[str, list[DictionarySpec]] = {
    "sae": [sae(Site("mlp_out", layer), k=K) for layer in LAYERS],
    "transcoder": [transcoder(layer, k=K) for layer in LAYERS],
    "skip": [transcoder(layer, k=K, skip=True) for layer in LAYERS],
}


def main() -> None:
    """Parse the paths and run every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--work", required=True, type=Path)
    arguments = parser.parse_args()
    work, texts = arguments.work, texts_of(arguments.text)
    model = load(arguments.model)
    train_all(model, texts, work)
    RESULTS.mkdir(exist_ok=True)
    write_json(judge_all(model, texts, work), RESULTS / "quality.json")


def train_all(model: TransformerBridge, texts: Corpus, work: Path) -> None:
    """One cache of activations, then one suite of each kind from it."""
    sites = [Site(kind, layer) for layer in LAYERS for kind in ("mlp_in", "mlp_out")]
    with bars() as report:
        cache_activations(
            model, sites, texts, work / "cache", tokens=READ, stream=STREAM, half=True,
            report=report,
        )  # fmt: skip
    for name, specs in KINDS.items():
        if (work / name / "suite.json").exists():
            continue
        with bars() as report:
            train(
                model,
                specs,
                texts,
                work / name,
                config=TRAINING,
                stream=replace(STREAM),
                options=RunOptions(resume=True),
                cache=work / "cache",
                report=report,
            )


def judge_all(model: TransformerBridge, texts: Corpus, work: Path) -> dict[str, Any]:
    """The quality of all nine on the same held-out text, with the controls of each."""
    blocks = held_out_blocks(texts(), model, tokens=JUDGED_ON + CONTROLS_ON)
    n = JUDGED_ON // blocks.shape[1]
    record = {}
    for name in KINDS:
        found = find(work / name)
        opened = [found.load(entry) for entry in found.entries]
        with bars() as report:
            judged = evaluate_with_baselines(
                model,
                opened,
                blocks[:n],
                fitted_on=blocks[n:],
                report=lambda done, total, report=report, name=name: report(name, done, total),
            )
        for dictionary, one in zip(opened, judged, strict=True):
            controls = {label: asdict(c) for label, c in one.controls.items()}
            key = f"{name} layer {dictionary.target.layer}"
            record[key] = asdict(one.quality) | {"controls": controls}
    return record


if __name__ == "__main__":
    main()
