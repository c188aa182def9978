"""Adapters of peft: a folder with small weights that are added to those of another model."""

import json
from pathlib import Path
from typing import Any

from hooked_qwen.notices import first_line

CONFIG = "adapter_config.json"
BASE = "base_model_name_or_path"


def base_of(folder: Path) -> str | None:
    """The model that a folder holds an adapter to; None for a folder that holds no adapter.

    Raises `ValueError` for an adapter that names no model.
    """
    config = folder / CONFIG
    if not config.is_file():
        return None
    try:
        base = json.loads(config.read_text(encoding="utf-8"))[BASE]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base or Path(base).expanduser().resolve() == folder:
        raise ValueError(
            f"{config} names no model: expected {BASE!r}, the model that the adapter was trained on"
        )
    return base


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with an adapter merged into its weights: W + (alpha / rank) B A for LoRA.

    Raises `ValueError` where peft is not installed, and for an adapter to another model.
    """
    peft = require_peft()
    try:
        return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"the adapter at {folder} does not fit its model: {first_line(error)}"
        ) from error


def require_peft() -> Any:
    """The package peft; raises `ValueError` where it is not installed."""
    try:
        import peft
    except ImportError:
        raise ValueError(
            "adapters need the package peft, which is not installed: "
            "pip install 'qwen-circuits[tune]'"
        ) from None
    return peft
