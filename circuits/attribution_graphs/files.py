"""The JSON of an attribution graph: what must be in it, and numbers that may be."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GraphRecord = Mapping[str, Any]
OUTPUT = re.compile(r"[\"'](.*)[\"']\s*k?\(p=([\d.eE+-]+)\)", re.DOTALL)


def record_of(path: Path) -> GraphRecord:
    """The file as it is; raises `ValueError` for one that is no attribution graph."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): expected an attribution graph") from None
    lacking = [name for name in ("metadata", "nodes", "links") if not _has(record, name)]
    if lacking:
        raise ValueError(
            f"{path} is no attribution graph: it lacks {', '.join(lacking)}; expected the JSON "
            "that circuit-tracer or Neuronpedia write, with metadata, nodes and links"
        )
    return record


def _has(record: Any, name: str) -> bool:
    kind = Mapping if name == "metadata" else list
    return isinstance(record, Mapping) and isinstance(record.get(name), kind)


def output_of(record: GraphRecord) -> tuple[str, float]:
    """An output's token and probability, as its label says them."""
    found = OUTPUT.search(str(record.get("clerp") or ""))
    token = found[1] if found else str(record.get("clerp") or record["feature"])
    return token, float(found[2] if found else record.get("token_prob") or 0.0)


def finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {number}")
    return number
