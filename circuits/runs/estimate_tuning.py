"""What a fine-tuning would take, before a model is read."""

from collections.abc import Mapping
from typing import Any

from circuits.runs.trained import Material, Start
from hooked_qwen.load import load_config
from hooked_qwen.plain_model import outline_plain
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.trained_weights import counts, opened

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OPTIMIZER = 2
"Numbers that Adam keeps of each weight that is trained."


def tuning_estimate(
    start: Start, texts: Material, training: FineTuneConfig, arms: int
) -> dict[str, Any]:
    """Weights, tokens and bytes of `arms` trainings one after another.

    The bytes are those of weights, gradients and Adam's means; activations come on top, and grow
    with the tokens of a pass.
    """
    sizes = counts(opened(outline_plain(load_config(start.source)), start.rank, base=start.name))
    each = BYTES[start.placement.dtype or "float32"]
    longest = max(map(len, texts.train))
    return {
        **sizes,
        "bytes": each * (sizes["weights"] + (1 + OPTIMIZER) * sizes["trained"]),
        "texts": len(texts.train),
        "passes": arms * training.steps * _accumulated(training.trainer),
        "tokens_in_a_pass": training.batch * longest,
        "arms": arms,
    }


def _accumulated(trainer: Mapping[str, Any]) -> int:
    return int(trainer.get("gradient_accumulation_steps", 1))
