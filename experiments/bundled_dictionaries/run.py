"""Train the suite that `--dictionaries bundled` names, and write its quality table.

    python -m experiments.bundled_dictionaries.run

SAEs of every stream, attention and MLP output, and a transcoder of every MLP, stored in bfloat16.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from circuits.cli.progress_bars import bars
from circuits.graph import write_json
from hooked_qwen.bundled import DICTIONARIES
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import texts_of
from saes.training.config import TrainConfig
from saes.training.log import LOG
from saes.training.train import train
from transcoders.specs import dictionary_specs

RESULTS = Path(__file__).parent / "results"
KINDS = ("resid_post", "attn_out", "mlp_out")
FEATURES_PER_TOKEN = 3
TRAINING = TrainConfig(width=512, tokens=800_000, learning_rate=2e-3, dead_after=40_000)
STREAM = StreamConfig(reuse=2)


def main() -> None:
    """Train, judge, write."""
    model = load(BUNDLED)
    specs = dictionary_specs(
        ["saes", "transcoders"], range(model.cfg.n_layers), KINDS, k=FEATURES_PER_TOKEN
    )
    with bars() as report:
        quality = train(
            model,
            specs,
            texts_of([BUNDLED]),
            DICTIONARIES,
            config=TRAINING,
            stream=STREAM,
            report=report,
            dtype=torch.bfloat16,
        )
    (DICTIONARIES / LOG).unlink()
    record = {spec.name: asdict(q) for spec, q in zip(specs, quality, strict=True)}
    RESULTS.mkdir(exist_ok=True)
    write_json(record, RESULTS / "quality.json")


if __name__ == "__main__":
    main()
