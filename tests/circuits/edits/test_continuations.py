"""Continuations under an edit are those of plain hooks, with a cache, together, held or not."""

import pytest
import torch

from circuits.edits.continuations import GenerateConfig, rerun_generation, text_ends
from hooked_qwen.nodes import Node
from hooked_qwen.tokens import END_OF_TEXT, end_of_text
from saes.edit import Edit, Operation
from tests.circuits.edits.test_rerun import EDIT, Plain
from tests.circuits.features.test_steering import model_on
from tests.toys import speaking_toy, toy_suite
from transcoders.interventions import THE_MODEL, Mode, intervened

SITE, FEATURES = "resid_post.1", (5, 13)


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def suite():
    return toy_suite(SITE, dtype=torch.float32)


def test_thirty_tokens_are_those_of_plain_hooks_with_their_probabilities(model, suite):
    text = "the cat sat"
    config = GenerateConfig(tokens=30)
    (row,) = rerun_generation(model, suite, EDIT, [text], config)["prompts"]
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    plain = Plain(suite)
    written = plain.run(
        lambda m: m.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=30, do_sample=False,
            pad_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    for when, whole in zip(("before", "after"), written, strict=True):
        ids = whole[0, tokens.shape[1] :].tolist()
        assert row[when] == "".join(model.tokenizer.decode([i]) for i in ids)
        logits = plain.run(lambda m, whole=whole: m(whole).logits[0, tokens.shape[1] - 1 : -1])
        for name, x in zip(("before", "after"), logits, strict=True):
            expected = x.softmax(-1)[range(len(ids)), ids].tolist()
            assert [t[name] for t in row[f"tokens_{when}"]] == pytest.approx(expected, abs=1e-5)
    assert row["before"] != row["after"]
    assert {t["mark"] for t in row["tokens_before"]} >= {"lowered"}


def test_prompts_written_on_together_are_written_on_as_alone(model, suite):
    texts = ["the cat sat", "a", "dog. cat"]
    config = GenerateConfig(tokens=8)
    together = rerun_generation(model, suite, EDIT, texts, config)["prompts"]
    for text, row in zip(texts, together, strict=True):
        (alone,) = rerun_generation(model, suite, EDIT, [text], config)["prompts"]
        assert (row["before"], row["after"]) == (alone["before"], alone["after"])


def test_an_edit_of_what_is_written_leaves_the_prompt_alone(model, suite):
    push = Operation(node=Node(SITE, 5), do="set", value=30.0, positions="generated")
    edit = Edit(operations=(push,))
    (row,) = rerun_generation(model, suite, edit, ["the cat"], GenerateConfig(tokens=6))["prompts"]
    first, *others = row["tokens_before"]
    assert first["before"] == pytest.approx(first["after"], abs=1e-6)
    assert any(abs(t["before"] - t["after"]) > 0.01 for t in others)


def test_the_same_seed_draws_the_same_text(model, suite):
    drawn = [
        rerun_generation(
            model, suite, EDIT, ["the cat"], GenerateConfig(tokens=20, temperature=1.0, seed=seed)
        )
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0]["prompts"] != drawn[2]["prompts"]


def test_prompts_are_written_on_with_their_attention_held(model, suite):
    """The first token is that of the intervention; the model in its mode is what it was."""
    mode, config = Mode(attention="frozen"), GenerateConfig(tokens=5)
    texts = ["the cat sat", "a"]
    written = rerun_generation(model, suite, EDIT, texts, config, mode)
    assert (written["attention"], written["mlps"]) == ("frozen", "model")
    freely = rerun_generation(model, suite, EDIT, texts, config)["prompts"]
    for text, row, free in zip(texts, written["prompts"], freely, strict=True):
        tokens = torch.tensor(model.tokenizer(text)["input_ids"])
        with torch.no_grad(), intervened(model, suite, [EDIT], mode):
            p, q = model(tokens.expand(2, -1))[:, -1].softmax(-1)
        first = row["tokens_after"][0]
        (number,) = model.tokenizer(first["token"])["input_ids"]
        assert number == int(q.argmax())
        assert first["before"] == pytest.approx(float(p[number]), abs=1e-5)
        assert first["after"] == pytest.approx(float(q[number]), abs=1e-5)
        assert row["before"] == free["before"]
    before, now = (x[0]["tokens_before"] for x in (freely, written["prompts"]))
    assert [t["before"] for t in now] == pytest.approx([t["before"] for t in before], abs=1e-5)
    assert abs(now[0]["after"] - before[0]["after"]) > 1e-3


def test_where_the_prompt_is_left_alone_nothing_is_changed_by_holding_it(model, suite):
    push = Operation(node=Node(SITE, 5), do="set", value=30.0, positions="generated")
    edit, config = Edit(operations=(push,)), GenerateConfig(tokens=6)
    (expected,) = rerun_generation(model, suite, edit, ["the cat"], config)["prompts"]
    mode = Mode(attention="patterns")
    (row,) = rerun_generation(model, suite, edit, ["the cat"], config, mode)["prompts"]
    assert (row["before"], row["after"]) == (expected["before"], expected["after"])
    for name in ("tokens_before", "tokens_after"):
        for when in ("before", "after"):
            told = [t[when] for t in expected[name]]
            assert [t[when] for t in row[name]] == pytest.approx(told, abs=1e-5)


def test_held_or_not_draws_are_the_same_plainly_and_under_the_edit(model, suite):
    as_it_is = Edit(operations=(Operation(node=Node(SITE, "*"), do="scale", value=1.0),))
    config = GenerateConfig(tokens=20, temperature=1.0)
    for mode in (THE_MODEL, Mode(attention="frozen")):
        (row,) = rerun_generation(model, suite, as_it_is, ["the cat"], config, mode)["prompts"]
        assert row["before"] == row["after"]


def test_an_edit_that_never_fires_while_the_prompt_is_held_is_told(model, suite):
    late = Edit(operations=(Operation(node=Node(SITE, 5, 90), do="set", value=3.0),))
    with pytest.raises(RuntimeError, match="was never done: no text that was run"):
        rerun_generation(
            model, suite, late, ["the cat"], GenerateConfig(tokens=3), Mode(attention="patterns")
        )


def test_a_turn_of_a_conversation_ends_a_text_too():
    model = model_on()
    model.tokenizer.add_tokens([END_OF_TEXT])
    end = end_of_text(model.tokenizer)
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(2)
    for ends, expected in ((None, [end, 2]), (end, [end, 2]), ([end, 2], [end, 2]), (2, [2])):
        model.original_model.generation_config.eos_token_id = ends
        assert text_ends(model) == expected
