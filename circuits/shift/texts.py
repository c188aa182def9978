"""The texts that SHIFT works on: those that this project writes, or a file of labelled texts."""

from collections.abc import Sequence
from pathlib import Path

from circuits.shift.biographies import biographies
from circuits.shift.labelled import LabelledText, ShiftData, without_words
from hooked_qwen.load import BUNDLED, local_folder

__all__ = ["LabelledText", "ShiftData", "shift_data", "without_words"]

NAMES = ("biographies",)
N = 400


def shift_data(
    name_or_path: str | Path,
    *,
    label: str | None = None,
    spurious: str | None = None,
    classes: Sequence[str] | None = None,
    n: int = N,
    seed: int = 0,
    model: str = BUNDLED,
) -> ShiftData:
    """Four sets of `n` texts each, in the language that `model` knows."""
    if str(name_or_path) not in NAMES:
        raise ValueError(f"no texts are called {str(name_or_path)!r}: {', '.join(NAMES)}")
    bundled = local_folder(model) == local_folder(BUNDLED)
    return biographies(classes=classes, n=n, seed=seed, bundled=bundled)
