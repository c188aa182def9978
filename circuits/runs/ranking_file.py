"""`ranking.json`: every changed node and its effect, strongest first, a line for each."""

import json
from itertools import islice
from pathlib import Path

from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.ranking import Ranking
from circuits.graph import Node, rounded
from hooked_qwen.files import write_atomically

RANKING = "ranking.json"
AT_ONCE = 65_536
"Nodes that are Python objects together."


def write_ranking(ranking: Ranking, path: Path) -> None:
    """Write every node and its effect as JSON, a line for each: there may be millions."""

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as file:
            file.write(f'{{"names": {json.dumps(ranking.names)}, "nodes": [')
            for start in range(0, len(ranking), AT_ONCE):
                rows = [[str(n), rounded(e)] for n, e in ranking[start : start + AT_ONCE]]
                lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
                file.write(("," if start else "") + "\n" + lines)
            file.write("\n]}\n")

    write_atomically(path, write)


def read_ranking(path: Path) -> Ranking:
    """Read what `write_ranking` wrote, some lines at a time."""
    try:
        with path.open(encoding="utf-8") as file:
            names = json.loads(file.readline() + "]}")["names"]
            lines = (line.rstrip(",\n") for line in file if line.startswith("["))
            parts = [NodeEffects.listed(names, [])]
            while some := [json.loads(line) for line in islice(lines, AT_ONCE)]:
                rows = [(Node.parse(node), effect) for node, effect in some]
                parts.append(NodeEffects.listed(names, rows))
    except (OSError, ValueError, TypeError, KeyError):
        raise ValueError(
            f"{path} is missing, damaged, or of an earlier version: run `circuits discover` again"
        ) from None
    return NodeEffects.one_after_another(parts)
