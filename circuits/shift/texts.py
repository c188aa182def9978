"""The texts that SHIFT works on: those that this project writes, or a file of labelled texts."""

from collections.abc import Callable, Sequence
from pathlib import Path

from circuits.shift.biographies import biographies
from circuits.shift.labelled import LabelledText, ShiftData, only_words, without_words
from circuits.shift.labelled_files import N, labelled_file
from circuits.shift.registers import registers
from hooked_qwen.model_place import BUNDLED, local_folder

__all__ = ["LabelledText", "ShiftData", "only_words", "shift_data", "without_words"]

WRITTEN: dict[str, Callable[..., ShiftData]] = {"biographies": biographies, "registers": registers}


def shift_data(
    name_or_path: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    spurious: str | None = None,
    classes: Sequence[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    model: str = BUNDLED,
) -> ShiftData:
    """Four sets of `n` texts each; the same arguments give the same texts.

    A name of ours is written in the language that `model` knows. Of a file, `text`, `label` and
    `spurious` name the fields where they are not found by their usual names; `classes` are the
    two values of the label that are told apart, else the two most frequent. No `n` is 400, or as
    many as a file has.

    Raises `ValueError` for a name that is neither, and for what `labelled_file` refuses.
    """
    write = WRITTEN.get(str(name_or_path))
    if write is None:
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise ValueError(
                f"no texts at {name_or_path}: give a file of labelled texts, "
                f"or one of ours, {' or '.join(WRITTEN)}"
            )
        return labelled_file(
            path, text=text, label=label, spurious=spurious, classes=classes, n=n, seed=seed
        )
    bundled = local_folder(model) == local_folder(BUNDLED)
    data = write(classes=classes, n=N if n is None else n, seed=seed, bundled=bundled)
    for what, asked, has in (
        ("text", text, None),
        ("label", label, data.label),
        ("spurious", spurious, data.spurious),
    ):
        if asked not in (None, has):
            raise ValueError(f"{data.name} have no {what} {asked!r}, but {has or 'one text each'}")
    return data
