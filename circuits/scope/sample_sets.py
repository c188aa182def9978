"""Sets of samples as `circuits cover` takes them: files of texts or prompts, and shipped tasks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.prompt_files import NAMES, read_prompts
from circuits.prompts import prompt_texts
from circuits.tasks import Split, as_many_as_exist, names_for
from hooked_qwen.compression import suffix_of
from hooked_qwen.records import read_records
from hooked_qwen.texts import texts_of


def sample_sets(
    sources: Sequence[str], model: str, tokenizer: Any, *, texts: int, seed: int = 0
) -> dict[str, list[str]]:
    """The first `texts` samples of each source, by name.

    A source is a file of prompts, of which the clean ones count, texts as `--text` takes them, or
    the name of a task that `circuits prompts list` has, of whose pairs half come from either split.
    Sets are called as their files without suffix, or by the whole path where two are called alike.

    Raises `ValueError` for what is neither, and for a source given twice.
    """
    for source, times in Counter(sources).items():
        if times > 1:
            raise ValueError(f"{source} is given {times} times: every set once")
    short = [_short_name(source) for source in sources]
    names = short if len(set(short)) == len(short) else list(sources)
    return {
        name: _samples(source, model, tokenizer, texts, seed)
        for name, source in zip(names, sources, strict=True)
    }


def _short_name(source: str) -> str:
    path = Path(source)
    return path.name.split(".")[0] if path.exists() else source


def _samples(source: str, model: str, tokenizer: Any, texts: int, seed: int) -> list[str]:
    path = Path(source)
    if path.is_file() and _holds_prompts(path):
        return [prompt_texts(p, tokenizer)[0] for p in islice(read_prompts(path), texts)]
    tasks = names_for(model)
    if source in tasks and not path.exists():
        halves: dict[Split, int] = {"train": (texts + 1) // 2, "test": texts // 2}
        pairs = [
            prompt
            for split, n in halves.items()
            if n
            for prompt in as_many_as_exist(model, source, n, split=split, seed=seed)
        ]
        return [pair.clean for pair in pairs]
    try:
        found = texts_of([source])()
    except ValueError as error:
        raise ValueError(f"{error}; a task is one of {', '.join(tasks)}") from None
    return list(islice((text for text in found if text.strip()), texts))


def _holds_prompts(path: Path) -> bool:
    """Whether the first record of a file has a field for clean prompts and none of a text."""
    if suffix_of(path) not in (".jsonl", ".json", ".csv", ".parquet"):
        return False
    _, first = next(iter(read_records(path)), ("", {}))
    return any(name in first for name in NAMES["clean"]) and "text" not in first


def read_results(path: Path) -> dict[str, Float[Tensor, "items models"]]:
    """What models got right, by set: a row for each item and model.

    Rows of JSON Lines, CSV or Parquet have `set`, `item` (counted from 0, in the set's order),
    `correct` (true or false, or a score from 0 to 1), and `model` where there are several.

    Raises `ValueError` naming the row that cannot be read, and what is missing.
    """
    found: dict[str, dict[tuple[int, str], float]] = {}
    for where, record in read_records(path):
        name, item, model, correct = _result(record, where)
        cells = found.setdefault(name, {})
        if (item, model) in cells:
            raise ValueError(f"{where}: item {item} of {name!r} has a result of {model!r} already")
        cells[item, model] = correct
    if not found:
        raise ValueError(f"{path} holds no results")
    return {name: _matrix(cells, f"{path}: {name!r}") for name, cells in found.items()}


def _result(record: Mapping[str, Any], where: str) -> tuple[str, int, str, float]:
    try:
        correct = record["correct"]
        if isinstance(correct, str):
            correct = {"true": 1.0, "false": 0.0}.get(correct.lower(), correct)
        values = str(record["set"]), int(record["item"]), float(correct)
    except (KeyError, TypeError, ValueError):
        values = None
    if values is None or values[1] < 0 or not 0 <= values[2] <= 1:
        raise ValueError(
            f'{where}: expected "set", "item" (a number from 0) and "correct" (true, false, or '
            f'from 0 to 1), and "model" where there are several; got {dict(record)!r:.80}'
        )
    return values[0], values[1], str(record.get("model") or ""), values[2]


def _matrix(cells: Mapping[tuple[int, str], float], where: str) -> Float[Tensor, "items models"]:
    items = max(item for item, _ in cells) + 1
    models = sorted({model for _, model in cells})
    for item in range(items):
        for model in models:
            if (item, model) not in cells:
                of = f" of {model!r}" if model else ""
                raise ValueError(f"{where} has no result{of} for item {item}: give all of them")
    return torch.tensor([[cells[item, model] for model in models] for item in range(items)])
