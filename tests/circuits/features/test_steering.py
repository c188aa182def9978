"""Sweeps of strengths: what is written, the controls beside it, and the command."""

import json
from dataclasses import replace
from math import nan

import pytest
import torch

from circuits.edits.continuations import GenerateConfig
from circuits.features.named import Named
from circuits.features.steering import steered
from circuits.features.steering_arms import SteerConfig
from circuits.features.steering_choice import ConceptTexts, choose
from circuits.render.pages.steer.steer_page import verdict
from hooked_qwen.load import hook
from saes.scope.output_score import NEUTRAL
from saes.scope.text_scores import Scorer, by_regex
from tests.toys import toy_hf, toy_suite, toy_tokenizer

PROMPTS = ["abc de", "Hello", "aaaa bbb ccc", "what? no!", "zyx"]
TEXTS = ["abc de", "Hello", "aaaa bbb ccc", "x", "what? no!", "ab", "zzz", "yzx zyx"]
SITES = ("resid_post.0", "resid_post.1")
WRITE = GenerateConfig(tokens=6)
CONFIG = SteerConfig(strengths=(1.0, 0.0), generation=WRITE, instruction="bbb")


def model_on(device="cpu"):
    return hook(toy_hf(dtype=torch.float32).to(device), tokenizer=toy_tokenizer(), name="toy")


@pytest.fixture(scope="module")
def model():
    return model_on()


@pytest.fixture(scope="module")
def suite():
    return toy_suite(*SITES, dtype=torch.float32)


@pytest.fixture(scope="module")
def examples():
    return ConceptTexts(texts=tuple(TEXTS), positive=torch.tensor([True, False] * 4))


def chosen_by(model, suite, examples, **options):
    return choose(
        model,
        suite,
        examples=examples,
        usage_from=TEXTS,
        neutral=NEUTRAL,
        **{"named": (), "top": 2, "candidates": 6, **options},
    )


@pytest.fixture(scope="module")
def swept(model, suite, examples):
    choice = chosen_by(model, suite, examples)
    named = Named(model, suite, {})
    return steered(
        model, suite, choice, PROMPTS, by_regex("[a-m]"), named, examples=examples, config=CONFIG
    )


def test_every_control_stands_beside_the_features(swept):
    methods = {one["group"] for one in swept["methods"]}
    assert methods == {
        "output",
        "activation",
        "negative",
        "random feature",
        "encoder direction",
        "difference of means",
        "instruction",
        "plain",
    }
    norms = {}
    for arm in swept["arms"]:
        norms.setdefault((arm["of"] or arm["direction"], arm["strength"]), []).append(arm["norm"])
    for one in swept["features"]:
        own = norms[one["feature"], 1.0]
        assert len(own) == 3
        assert own == pytest.approx([own[0]] * 3, rel=1e-6)
    scores = [one["score"]["value"] for one in swept["methods"]]
    assert scores == sorted(scores, reverse=True)
    assert verdict(swept).startswith(f"best: {swept['methods'][0]['name']}, ")
    assert swept["selection"]["ratio"] is None or swept["selection"]["ratio"]["value"] >= 0
    assert json.dumps(swept, allow_nan=False)


def test_methods_are_compared_prompt_by_prompt_with_the_best_simple_one(swept):
    """Prompts are drawn again here one by one, in another way than by weights of a mean."""
    each = {one["group"]: one["score_by_prompt"] for one in swept["methods"]}
    simple = {g: each[g] for g in ("instruction", "difference of means", "plain")}
    assert swept["baseline"] == max(simple, key=lambda group: sum(simple[group]))
    drawn = torch.randint(5, (4000, 5), generator=torch.Generator().manual_seed(3))
    for one in swept["methods"]:
        assert sum(each[one["group"]]) / 5 == pytest.approx(one["score"]["value"], abs=1e-6)
        if one["group"] == swept["baseline"]:
            assert one["difference"] is None
            continue
        pairs = torch.tensor(each[one["group"]]) - torch.tensor(each[swept["baseline"]])
        assert one["difference"]["value"] == pytest.approx(float(pairs.mean()), abs=1e-6)
        ends = pairs[drawn].mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
        assert one["difference"]["interval"] == pytest.approx(ends, abs=0.03)
    either = swept["selection"]
    between = either["output"]["value"] - either["activation"]["value"]
    assert either["difference"]["value"] == pytest.approx(between, abs=1e-6)


def test_what_each_prompt_scores_is_kept(swept):
    """Of a method it is that of the cell that the other half of the prompts chose."""
    cells = [swept["plain"], swept["instructed"], *swept["arms"]]
    for cell in cells:
        assert sum(cell["fluency_by_prompt"]) / 5 == pytest.approx(cell["fluency"]["value"])
    for one in swept["methods"]:
        for i, (c, f) in enumerate(zip(one["by_prompt"], one["fluency_by_prompt"], strict=True)):
            assert one["score_by_prompt"][i] == pytest.approx(2 * c * f / max(c + f, 1e-12))
            assert any((c, f) == (x["by_prompt"][i], x["fluency_by_prompt"][i]) for x in cells)


def test_strength_0_of_a_sweep_is_no_steering(swept):
    for arm in swept["arms"]:
        if arm["strength"] == 0 and arm["method"] != "difference of means":
            assert arm["texts"] == swept["plain"]["texts"]


CHAT = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}b"


@pytest.fixture
def chatty():
    model = model_on()
    model.tokenizer.chat_template = CHAT
    return model


def test_a_chat_puts_prompts_and_instruction_through_the_template_alike(chatty, suite, examples):
    choice = chosen_by(chatty, suite, examples, top=1)
    given = suite, choice
    named = Named(chatty, suite, {})
    config = replace(CONFIG, strengths=(1.0, -1.0), instruction="aaa {prompt}")

    def made(prompts, form, instruction):
        changed = replace(config, form=form, instruction=instruction)
        return steered(chatty, *given, prompts, by_regex("[a-m]"), named, config=changed)

    chat = made(PROMPTS, "chat", "aaa {prompt}")
    text = made([f"<{text}>b" for text in PROMPTS], "text", None)
    assert chat["plain"] == text["plain"]
    assert chat["arms"] == text["arms"]
    told = made([f"<aaa {text}>b" for text in PROMPTS], "text", None)
    assert chat["instructed"]["texts"] == told["plain"]["texts"]
    assert (chat["form"], chat["prompts"]) == ("chat", PROMPTS)


def test_a_chat_needs_a_template(model, suite, examples):
    choice = chosen_by(model, suite, examples, top=1)
    config = replace(CONFIG, form="chat")
    with pytest.raises(ValueError, match="has no chat template to put a request through"):
        steered(
            model, suite, choice, PROMPTS, by_regex("a"), Named(model, suite, {}), config=config
        )


def test_texts_without_letters_are_in_no_language(model, suite, examples):
    """Whatever is asked for: less of a script is not reached by writing nothing in any."""
    letters = Scorer(
        name="letters",
        said="",
        of=lambda texts: torch.tensor([nan if "b" in text else 0.0 for text in texts]),
    )
    choice = chosen_by(model, suite, examples, top=1)
    record = steered(
        model, suite, choice, PROMPTS, letters, Named(model, suite, {}),
        config=replace(CONFIG, goal="less", instruction=None),
    )  # fmt: skip
    seen = set()
    for row in (record["plain"], *record["arms"]):
        untold = ["b" in text for text in row["texts"]]
        assert [value is None for value in row["by_prompt"]] == untold
        assert row["concept"]["value"] == (None if all(untold) else 0.0)
        seen |= set(untold)
    assert seen == {True, False}
    assert json.dumps(record, allow_nan=False)


def test_a_sweep_on_another_device_is_the_same(other):
    def made(device):
        model, suite = model_on(device), toy_suite(*SITES, dtype=torch.float32)
        kinds = torch.tensor([True, False] * 4)
        examples = ConceptTexts(texts=tuple(TEXTS), positive=kinds)
        choice = chosen_by(model, suite, examples, top=1)
        config = replace(CONFIG, strengths=(1.0,))
        return steered(
            model, suite, choice, PROMPTS[:3], by_regex("[a-m]"), Named(model, suite, {}),
            examples=examples, config=config,
        )  # fmt: skip

    with other.complaining():
        there = made(other.name)
    other.agrees(there, made("cpu"))


def test_without_prompts_nothing_is_steered(model, suite, examples):
    choice = chosen_by(model, suite, examples, top=1)
    with pytest.raises(ValueError, match="there is no prompt to go on from"):
        steered(model, suite, choice, [], by_regex("a"), Named(model, suite, {}))
