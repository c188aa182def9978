"""What a fine-tuning would take, before a model is read."""

from typing import Any

from circuits.runs.tuning_case import StartingModel
from hooked_qwen.load import load_config, unhooked
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.trained_weights import counts, opened

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
OPTIMIZER = 2
"Numbers that Adam keeps of each weight that is trained."


def tuning_estimate(
    start: StartingModel,
    training: FineTuneConfig,
    *,
    arms: int,
    texts: int,
    rows: int,
    longest: int,
    passes_in_a_step: int = 1,
    written: int = 0,
) -> dict[str, Any]:
    """Weights, tokens and bytes of `arms` trainings one after another.

    Each reads `texts` texts, `rows` in a pass, of at most `longest` tokens; a step of GRPO has
    `written` tokens written first. The bytes are those of weights, gradients and Adam's means;
    activations come on top, and grow with the tokens of a pass.
    """
    sizes = counts(opened(unhooked(load_config(start.source)), start.rank, base=start.name))
    passes = int(training.trainer.get("gradient_accumulation_steps", passes_in_a_step))
    each = BYTES[start.placement.model_dtype]
    return {
        **sizes,
        "bytes": each * (sizes["weights"] + (1 + OPTIMIZER) * sizes["trained"]),
        "texts": texts,
        "passes": arms * training.steps * passes,
        "tokens_in_a_pass": rows * longest,
        "tokens_written": arms * training.steps * written,
        "arms": arms,
    }
