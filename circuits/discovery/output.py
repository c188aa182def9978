"""What a graph's output stands for: the tokens that its metric is of, and what each counts for."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from circuits.graph import Node, rounded
from circuits.metrics.metric import NAMES
from circuits.metrics.readout import MetricChoice, metric_name, short_name
from circuits.prompts import EncodedPrompts
from circuits.render.words import answers_named
from hooked_qwen.tokens import Batch, token_strings

MOST = 10
"Tokens that an output names; the rest are counted."
SEVERAL = "answer"
"What an output is called that stands for several tokens."


AnswerPair = tuple[tuple[str, ...], tuple[str, ...]]
"The right tokens of a prompt, those that count most first, and the wrong ones."


def prompts_record(prompts: EncodedPrompts, tokenizer: Any) -> dict[str, Any]:
    """What `meta` of a graph says of its prompts.

    `example` is the first of them, clean and patch in tokens, with its answers.

    `answers` has the tokens that the metric is of, strongest first, each with its share of the
    answer (mean over prompts, so that all add up to 1), how many `others` there are, whether
    they are those of the `prompts`, the `model` or `both`, and, where a prompt named none, the
    model's own for each such prompt. `pairs` has right and wrong tokens as they go together,
    with the share of prompts that each pair is of, and `other_pairs` how many more there are.
    """
    shares, pairs = answer_shares(prompts), answer_pairs(prompts, tokenizer)
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
            "pairs": [[*map(list, p), rounded(n / len(prompts))] for p, n in pairs[:MOST]],
            "other_pairs": max(len(pairs) - MOST, 0),
        },
        "example": {
            side: None if batch is None else _tokens(batch, tokenizer)
            for side, batch in (("clean", prompts.clean), ("patch", prompts.patch))
        }
        | dict(zip(("answer", "wrong"), map(list, _pair(prompts, 0, tokenizer)), strict=True)),
    }


def _tokens(batch: Batch, tokenizer: Any) -> list[str]:
    """The first prompt's tokens."""
    return _names(tokenizer, batch.tokens[0][batch.mask[0]].tolist())


def _names(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    return [f"<id {i}>" for i in ids] if tokenizer is None else token_strings(tokenizer, ids)


def answer_pairs(prompts: EncodedPrompts, tokenizer: Any) -> list[tuple[AnswerPair, int]]:
    """Right and wrong tokens as they go together, and of how many prompts; those of most first."""
    counts: Counter[AnswerPair] = Counter()
    for i in range(len(prompts)):
        counts[_pair(prompts, i, tokenizer)] += 1
    return counts.most_common()


def _pair(prompts: EncodedPrompts, i: int, tokenizer: Any) -> AnswerPair:
    right = sorted(_of_prompt(prompts, i), key=lambda pair: -pair[1])
    return tuple(t for t, _ in right), tuple(_names(tokenizer, prompts.wrong_ids[i]))


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


def output_node(prompts: EncodedPrompts, metric: MetricChoice, tokenizer: Any) -> tuple[Node, str]:
    """The graph's output and its label: the tokens that the metric is of, or what it reads."""
    if metric not in NAMES:
        name = short_name(metric)
        return Node("logit", name), name
    shares = answer_shares(prompts)
    node = Node("logit", shares[0][0] if len(shares) == 1 else SEVERAL)
    pairs = [pair for pair, _ in answer_pairs(prompts, tokenizer)]
    labels = {
        "log-probability": f"log p({answers_named([(right, ()) for right, _ in pairs], 0)})",
        "probability-difference": f"p({answers_named(pairs, 0)})",
        "kl": "KL from the clean run",
    }
    return node, labels.get(metric_name(metric), answers_named(pairs, 0))
