"""What a graph's output is called, and what is recorded of its prompts."""

from dataclasses import replace

import pytest

from circuits.discovery.output import output_node, prompts_record
from circuits.render.words import caption
from hooked_qwen.tokens import token_strings
from tests.toys import toy_prompts, toy_tokenizer


def test_many_answers_are_named_by_the_ten_that_count_most():
    ids = tuple((i, i + 1) for i in range(20))
    prompts = replace(
        toy_prompts(20),
        answer_ids=ids,
        answer_texts=tuple((f" t{i}", " all") for i, _ in ids),
    )
    record = prompts_record(prompts, toy_tokenizer())["answers"]
    assert record["tokens"][0] == [" all", 0.5]
    assert (len(record["tokens"]), record["others"], record["of"]) == (10, 11, "prompts")
    assert (len(record["pairs"]), record["other_pairs"]) == (10, 10)
    assert sum(share for *_, share in record["pairs"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pairs", "metric", "said"),
    [
        ([((4,), (5,))] * 3, "logit-difference", "e − f"),
        ([((4,), (5,))] * 3, "log-probability", "log p(e)"),
        ([((4,), (5,)), ((5,), (4,))], "logit-difference", "e − f, f − e"),
        ([((4,), (5,))] + [((6,), (7,))] * 2, "logit-difference", "g − h, e − f"),
        ([((i,), (25 - i,)) for i in range(12)], "logit-difference", "a − z, b − y, … 10 more"),
        ([((4, 5), (6,))], "logit-difference", "e/f − g"),
        ([((4,), ())], "logit-difference", "e"),
        ([((4,), (5,))], "kl", "KL from the clean run"),
    ],
)
def test_an_output_is_called_by_the_tokens_that_its_metric_is_of(pairs, metric, said):
    a = toy_tokenizer().convert_tokens_to_ids("a")
    right, wrong = (
        tuple(tuple(a + i for i in ids) for ids in side) for side in zip(*pairs, strict=True)
    )
    letters = tuple(tuple(token_strings(toy_tokenizer(), ids)) for ids in right)
    prompts = replace(
        toy_prompts(len(pairs)), answer_ids=right, wrong_ids=wrong, answer_texts=letters
    )
    node, label = output_node(prompts, metric, toy_tokenizer())
    assert label == said
    assert caption(node, {"label": label}) == said
