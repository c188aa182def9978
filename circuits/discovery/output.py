"""What a graph's output stands for: the tokens that its metric is of, and what each counts for."""

from collections import defaultdict
from typing import Any

from circuits.graph import Node, rounded
from circuits.metrics.metric import NAMES
from circuits.metrics.readout import MetricChoice, metric_name, short_name
from circuits.prompts import EncodedPrompts
from circuits.render.words import shares_in_words

MOST = 10
"Tokens that an output names; the rest are counted."
SEVERAL = "answer"
"What an output is called that stands for several tokens."


def prompts_record(prompts: EncodedPrompts) -> dict[str, Any]:
    """What `meta` of a graph says of its prompts.

    `answers` has the tokens that the metric is of, strongest first, each with its share of the
    answer (mean over prompts, so that all add up to 1), how many `others` there are, whether
    they are those of the `prompts`, the `model` or `both`, and, where a prompt named none, the
    model's own for each such prompt.
    """
    shares = answer_shares(prompts)
    per_prompt = [
        [[token, rounded(share)] for token, share in _of_prompt(prompts, i)]
        if i in prompts.own
        else None
        for i in range(len(prompts))
    ]
    origin = "model" if len(prompts.own) == len(prompts) else "both" if prompts.own else "prompts"
    return {
        "prompt_lengths": list(prompts.lengths),
        "prompts_left_out": dict(prompts.left_out),
        "answers": {
            "of": origin,
            "tokens": [[token, rounded(share)] for token, share in shares[:MOST]],
            "others": max(len(shares) - MOST, 0),
            "by_prompt": per_prompt if prompts.own else None,
            "of_several_tokens": prompts.several_tokens,
        },
    }


def answer_shares(prompts: EncodedPrompts) -> list[tuple[str, float]]:
    """Every right answer's token and what it counts for: a mean over prompts, 1 in total."""
    shares: defaultdict[str, float] = defaultdict(float)
    for i in range(len(prompts)):
        for token, share in _of_prompt(prompts, i):
            shares[token] += share / len(prompts)
    return sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))


def _of_prompt(prompts: EncodedPrompts, i: int) -> list[tuple[str, float]]:
    texts = prompts.prompts[i].answer if prompts.answer_texts is None else prompts.answer_texts[i]
    weights = [1 / len(texts)] * len(texts)
    if prompts.answer_weights is not None:
        weights = prompts.answer_weights[i]
    return list(zip(texts, weights, strict=True))


def output_node(prompts: EncodedPrompts, metric: MetricChoice) -> tuple[Node, str]:
    """The graph's output and its label: the answer, where there is only one, or what is read."""
    if metric not in NAMES:
        name = short_name(metric)
        return Node("logit", name), name
    shares = answer_shares(prompts)
    node = Node("logit", shares[0][0] if len(shares) == 1 else SEVERAL)
    named = node.feature
    if len(shares) > 1:
        named = shares_in_words(shares[:MOST], max(len(shares) - MOST, 0))
    against = "wrong" if all(prompts.wrong_ids) else "mean"
    labels = {"log-probability": f"log p({named})", "kl": "KL from the clean run"}
    return node, labels.get(metric_name(metric), f"{named} − {against}")
