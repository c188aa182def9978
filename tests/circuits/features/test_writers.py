"""Who writes texts: what is asked, and what is kept of the answer."""

from dataclasses import replace

import pytest
import torch

from circuits.features.writers import (
    PROMPTS_AT_ONCE,
    WritingConfig,
    asking,
    by_model,
    cleaned,
    default_style,
    each_by,
)
from hooked_qwen.tokens import end_of_text
from tests.toys import speaking_toy

CONTINUED = WritingConfig(style="continuation", tokens=6, separator=" ")


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


def test_prompts_show_examples_and_say_what_they_share():
    ordered = asking(["One.", "Two\nlines."], WritingConfig(), common="numbers")
    assert "1. One.\n2. Two lines." in ordered
    assert "numbers" in ordered
    assert "have to do with" not in asking(["One."], WritingConfig())
    assert asking(["One.", "Two."], CONTINUED, common="numbers") == "One. Two."
    apart = WritingConfig(style="continuation")
    assert asking(["One.", "Two."], apart) == "One.\n\nTwo.\n\n"


def test_an_instruction_goes_through_the_chat_template(model):
    plain, ordered = CONTINUED, WritingConfig(tokens=6, temperature=0.0)
    said = "{% for m in messages %}ab{{ m['content'] }}?{% endfor %}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.tokenizer, "chat_template", said)
        assert default_style(model.tokenizer) == "instruction"
        through = by_model(model, ordered)(["c d", "x"], 0)
    greedy = replace(plain, temperature=0.0)
    assert through == by_model(model, greedy)(["abc d?", "abx?"], 0)
    assert through != by_model(model, greedy)(["c d", "x"], 0)


def test_what_follows_a_text_is_cut():
    apart = WritingConfig(style="continuation")
    assert cleaned(" A text.\n\nAnother", apart) == "A text."
    assert cleaned("It is 3.5 m long. And then it", CONTINUED) == "It is 3.5 m long."
    assert cleaned("一句。两句!还有", WritingConfig()) == "一句。两句!"
    assert cleaned("no end of a\nsentence", WritingConfig()) == "no end of a sentence"


def test_the_model_writes_what_it_writes_alone(model):
    assert default_style(model.tokenizer) == "continuation"
    greedy = WritingConfig(style="continuation", tokens=5, temperature=0.0)
    writer = by_model(model, greedy)
    prompts = ["ab c", "Hello there", "x"]
    together = writer(prompts, 0)
    assert together == [writer([prompt], 0)[0] for prompt in prompts]
    inner = model.original_model
    for prompt, (text,) in zip(prompts, together, strict=True):
        tokens = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        for _ in range(5):
            following = inner(tokens, use_cache=False).logits[0, -1].argmax()
            if following == end_of_text(model.tokenizer):
                break
            tokens = torch.cat([tokens, following[None, None]], 1)
        start = len(model.tokenizer(prompt)["input_ids"])
        assert text == model.tokenizer.decode(tokens[0, start:], skip_special_tokens=True)
    sampling = by_model(model, CONTINUED)
    assert sampling(prompts, 1) == sampling(prompts, 1) != sampling(prompts, 2)


@pytest.mark.parametrize("who", ["model", "function"])
def test_texts_are_told_of_as_they_are_written(model, who):
    told = []

    def report(*one):
        told.append(one)

    def answer(prompt):
        assert told[-1] == ("writing", len(prompt) - 1, 20)
        return ""

    few = replace(CONTINUED, tokens=1)
    writer = (
        by_model(model, few, report=report) if who == "model" else each_by(answer, report=report)
    )
    writer(["a" * (i + 1) for i in range(20)], 0)
    each = [0, PROMPTS_AT_ONCE, 20] if who == "model" else range(21)
    assert told == [("writing", done, 20) for done in each]
