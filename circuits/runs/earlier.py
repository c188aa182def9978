"""What runs of earlier versions did not record of their prompts, read from the prompt file.

A graph says by itself which task it is of, its first prompt, and which right and wrong tokens go
together. One that does not yet is told so while it is drawn, where its prompt file is still the
same; texts stand there in words instead of tokens.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.prompt_files import Prompt, read_prompts
from circuits.render.words import answers_named
from hooked_qwen.files import content_hash

WORD = re.compile(r"\s*\S+\s*$|\s*\S+")
PAIRS = 10
OF_PAIRS = "logit-difference"


def told(graph: nx.DiGraph, manifest: Mapping[str, Any]) -> nx.DiGraph:
    """A copy of the graph that says its task, its first prompt, and its pairs of answers."""
    path = Path(str(manifest.get("prompts_path") or ""))
    if "example" in graph.graph or not path.is_file():
        return graph
    if content_hash(path) != manifest.get("prompts_hash"):
        return graph
    prompts = read_prompts(path)
    found = graph.copy()
    found.graph["task"] = path.stem
    found.graph["example"] = _example(prompts[0])
    pairs = Counter((p.answer, p.wrong) for p in prompts).most_common()
    answers = found.graph.get("answers")
    if answers and answers.get("of") == "prompts" and not answers.get("of_several_tokens"):
        told = [[list(a), list(b), n / len(prompts)] for (a, b), n in pairs[:PAIRS]]
        more = {"pairs": told, "other_pairs": max(len(pairs) - PAIRS, 0)}
        found.graph["answers"] = {**answers, **more}
        if found.graph.get("metric") == OF_PAIRS:
            for _, data in found.nodes(data=True):
                if data["kind"] == "logit":
                    data["label"] = answers_named([pair for pair, _ in pairs], 0)
    return found


def _example(prompt: Prompt) -> dict[str, Any]:
    return {
        "clean": WORD.findall(prompt.clean),
        "patch": None if prompt.patch is None else WORD.findall(prompt.patch),
        "answer": list(prompt.answer),
        "wrong": list(prompt.wrong),
    }
