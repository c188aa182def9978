"""What experiments on a real model are given, and the files of texts that they write."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hooked_qwen.placement import DtypeName


@dataclass(frozen=True)
class TwoLanguages:
    """What the command line gave of experiments on one manual in English and in Chinese."""

    model: str
    dictionaries: str
    reference_en: Path
    reference_zh: Path
    work: Path
    dtype: DtypeName


def arguments(said: str | None, *files: str) -> argparse.ArgumentParser:
    """A parser of --model, --dictionaries, the `files` that are read, and the folder --work."""
    parser = argparse.ArgumentParser(description=said)
    for name in ("model", "dictionaries"):
        parser.add_argument(f"--{name}", required=True)
    for name in (*files, "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser


def write_texts(texts: Sequence[str], path: Path) -> None:
    """A line of JSON each, as `--text` takes them."""
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text("".join(lines), encoding="utf-8")
