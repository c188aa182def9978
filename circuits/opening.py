"""The model and the dictionaries that a verb is given, opened; what its record is made from."""

from collections.abc import Sequence
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.load import load
from hooked_qwen.model_place import source_hash
from hooked_qwen.placement import ANYWHERE, AUTO, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.threads import fit_threads
from saes.suite import MlpChoice, Suite, hash_of, load_suite


def load_model(
    source: str, report: Report = silent, placement: Placement = ANYWHERE
) -> TransformerBridge:
    """`load`, told of while it goes on; torch's threads fit the model."""
    report("loading", 0, 1)
    model = load(source, device=placement.device or AUTO, dtype=placement.model_dtype)
    fit_threads(model)
    report("loading", 1, 1)
    return model


def open_suite(
    dictionaries: str,
    model: str,
    mlp: MlpChoice,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> tuple[TransformerBridge, Suite]:
    """The model, and dictionaries for it; a notice where they were trained on another one."""
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    return open_model(suite, model, placement, report), suite


def open_model(
    suite: Suite, model: str, placement: Placement = ANYWHERE, report: Report = silent
) -> TransformerBridge:
    """The model for dictionaries; a notice where they were trained on another one."""
    loaded = load_model(model, report, placement)
    suite.notify_of_another_model(loaded)
    return loaded


def sources(
    dictionaries: str,
    model: str,
    text: Sequence[str],
    placement: Placement = ANYWHERE,
    **settings: Any,
) -> dict[str, Any]:
    """What a record of dictionaries is made from, by which two of them are the same."""
    return {
        "dictionaries_hash": hash_of(dictionaries),
        "model_hash": source_hash(model),
        "dtype": placement.model_dtype,
        "text": list(text),
        **settings,
    }
