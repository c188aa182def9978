"""What supporting and opposing means in a graph, in words: which tokens, or what is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from circuits.graph import ordered
from circuits.render.words import OF_ANSWERS, caption, shortened, tokens_named

WIDEST = 48
"Cells of what is supported."


def stance_words(graph: nx.DiGraph) -> tuple[str, str]:
    """What the two kinds of nodes and lines do: `supports “are” over “is”`, and so `opposes`.

    A metric that is of no answers is raised or lowered.
    """
    metric = str(graph.graph.get("metric") or OF_ANSWERS[0]).replace(" ", "-")
    if metric in OF_ANSWERS:
        return _both(
            "supports", "opposes", _answers(graph.graph, metric) or _outputs(graph, "“{}”")
        )
    if metric == "kl":
        return _both("supports", "opposes", "what the clean run predicts")
    return _both("raises", "lowers", _outputs(graph))


def _both(supports: str, opposes: str, what: str) -> tuple[str, str]:
    what = shortened(what, WIDEST)
    return f"{supports} {what}", f"{opposes} {what}"


def _answers(meta: Mapping[str, Any], metric: str) -> str | None:
    """The right tokens over the wrong ones of most prompts, and how many others there are."""
    answers = meta.get("answers") or {}
    pairs = answers.get("pairs") or [[[token], []] for token, _ in answers.get("tokens") or []]
    others = answers.get("other_pairs", answers.get("others")) or 0
    names = list(dict.fromkeys(_over(pair, metric) for pair in pairs))
    more = len(names) - 1 + others
    return names[0] + (f", … {more:,} more" if more else "") if names else None


def _over(pair: Sequence[Any], metric: str) -> str:
    right, wrong = (f"“{tokens_named(tokens)}”" for tokens in pair[:2])
    return f"{right} over {wrong}" if pair[1] and metric == "logit-difference" else right


def _outputs(graph: nx.DiGraph, form: str = "{}") -> str:
    outputs = [node for node in ordered(graph) if node.kind == "logit"]
    if len(outputs) != 1:
        return "the outputs" if outputs else "the output"
    return form.format(caption(outputs[0], graph.nodes[outputs[0]]))
