"""What is written under many edits at once is what each writes alone."""

from dataclasses import replace

import pytest
import torch

from circuits.edits.steered import SteeredWriter, instructed
from hooked_qwen.nodes import Node
from hooked_qwen.tokens import encode_prompt
from saes.scope.steering import feature_direction, steering_edit
from saes.scope.usage import usage_in
from tests.circuits.features.test_steering import PROMPTS, SITES, TEXTS, WRITE, model_on
from tests.toys import toy_hf, toy_suite


@pytest.fixture(scope="module")
def model():
    return model_on()


@pytest.fixture(scope="module")
def suite():
    return toy_suite(*SITES, dtype=torch.float32)


def writer(model, suite, *, limits=None, **options):
    rows = [encode_prompt(model.tokenizer, text) for text in PROMPTS]
    return SteeredWriter(
        model, suite, PROMPTS, replace(WRITE, **options), rows=rows, **(limits or {})
    )


def edits(model, suite, *strengths, **options):
    usage = usage_in(model, suite, TEXTS, names=SITES)
    own = feature_direction(suite, Node(SITES[1], 5), usage)
    return [steering_edit(own, strength, **options) for strength in strengths]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_strength_0_writes_what_the_model_writes(model, suite, temperature):
    write = writer(model, suite, temperature=temperature)
    plain, (nothing, some) = write.plain(), write.under(edits(model, suite, 0.0, 2.0))
    assert nothing.texts == plain.texts
    assert nothing.nats.tolist() == plain.nats.tolist()
    assert nothing.kl.abs().max() < 1e-6
    assert some.texts != plain.texts
    assert (some.kl > 1e-3).all()


def test_of_what_is_written_alone_the_kl_is_that_of_the_second_token(model, suite):
    rows = [encode_prompt(model.tokenizer, text) for text in PROMPTS]
    own = SteeredWriter(model, suite, PROMPTS, WRITE, rows=rows, during="generated")
    plain = own.plain()
    nothing, some = own.under(edits(model, suite, 0.0, 2.0, during="generated"))
    first = [encode_prompt(model.tokenizer, text)[0] for text in plain.texts]
    longer = [[*row, token] for row, token in zip(rows, first, strict=True)]
    at_last = SteeredWriter(model, suite, PROMPTS, WRITE, rows=longer)
    (expected,) = at_last.under(edits(model, suite, 2.0, during="last"))
    torch.testing.assert_close(some.kl, expected.kl, rtol=1e-4, atol=1e-6)
    assert (some.kl > 1e-3).all()
    assert nothing.kl.abs().max() < 1e-6
    # After an instruction other tokens may stand before the second.
    told = own.plain([[*row, row[0]] for row in rows])
    same = [a[0] == b[0] for a, b in zip(told.texts, plain.texts, strict=True)]
    assert (~told.kl.isnan()).tolist() == same


def test_edits_in_one_pass_write_what_each_writes_alone(model, suite):
    three = edits(model, suite, 0.5, 1.0, -2.0)
    together = writer(model, suite, temperature=1.0).under(three)
    for edit, found in zip(three, together, strict=True):
        (alone,) = writer(model, suite, temperature=1.0).under([edit])
        assert found.texts == alone.texts
        torch.testing.assert_close(found.kl, alone.kl, rtol=1e-3, atol=1e-6)


def test_a_seed_decides_what_is_drawn(model, suite):
    texts = [writer(model, suite, temperature=2.0, seed=seed).plain().texts for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] != writer(model, suite).plain().texts


def test_nats_are_those_of_the_plain_model_after_the_plain_prompt(model, suite):
    (found,) = writer(model, suite).under(edits(model, suite, 2.0))
    plain = toy_hf(dtype=torch.float32)
    for prompt, text, nats in zip(PROMPTS, found.texts, found.nats.tolist(), strict=True):
        before, own = (encode_prompt(model.tokenizer, part) for part in (prompt, text))
        with torch.no_grad():
            p = plain(torch.tensor([before + own])).logits[0].log_softmax(-1)
        at = range(len(before) - 1, len(before) + len(own) - 1)
        expected = -sum(float(p[i, token]) for i, token in zip(at, own, strict=True)) / len(own)
        assert nats == pytest.approx(expected, rel=1e-4)


def test_an_instruction_stands_before_the_prompt_or_around_it():
    assert instructed("Write.", "Once") == "Write.\nOnce"
    assert instructed("<{prompt}> in verse", "Once") == "<Once> in verse"


@pytest.mark.parametrize(("rows", "most"), [(2, 1), (10, 2), (256, 3)])
def test_what_is_written_together_changes_no_text(model, suite, rows, most):
    three = edits(model, suite, 0.5, 1.0, -2.0)
    every = writer(model, suite).under(three)
    seen = []
    some = writer(model, suite, limits={"rows_at_once": rows})
    found = some.under(three, report=lambda _, done, all: seen.append(done))
    assert seen[0] == most
    assert [one.texts for one in found] == [one.texts for one in every]


def test_long_prompts_are_written_on_from_few_at_a_time(model, suite):
    longest = max(len(encode_prompt(model.tokenizer, text)) for text in PROMPTS) + WRITE.tokens
    seen = []
    writer(model, suite, limits={"tokens_at_once": 10 * longest}).under(
        edits(model, suite, 0.5, 1.0, -2.0), report=lambda _, done, all: seen.append(done)
    )
    assert seen == [2, 3]


def test_the_head_sees_the_last_tokens_of_prompts_without_gaps(model, suite):
    """For a slice with gaps torch copies the head's weights for each prompt, in bfloat16."""
    seen = []
    head = model.unembed.original_component
    handle = head.register_forward_hook(lambda _, args, out: seen.append(args[0].is_contiguous()))
    try:
        writer(model, suite).plain()
    finally:
        handle.remove()
    assert len(seen) > WRITE.tokens
    assert all(seen)
