"""An edit rerun on prompts, text and generation, against hooks on Hugging Face's own model."""

import dataclasses

import pytest
import torch

from circuits.edits.continuations import GenerateConfig, rerun_generation
from circuits.edits.rerun import rerun_prompts, rerun_text
from circuits.prompts import Prompt, encode_prompts
from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.toys import analysis_of, speaking_toy, toy_hf, toy_suite
from transcoders.interventions import THE_MODEL, Mode, intervened

SITE, FEATURES = "resid_post.1", (5, 13)
EDIT = Edit(
    operations=(
        Operation(node=Node(SITE, FEATURES[0]), do="set", value=9.0),
        Operation(node=Node(SITE, FEATURES[1]), do="zero"),
    )
)


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def suite():
    return toy_suite(SITE, dtype=torch.float32)


class Plain:
    """Hugging Face's model, with the edit written out as a hook on a layer."""

    def __init__(self, suite):
        self.model, self.d = toy_hf(dtype=torch.float32), suite[SITE]

    def edited(self, module, args, x):
        pre = x @ self.d.W_enc.T + self.d.b_enc
        value, index = pre.topk(5)
        f = torch.zeros_like(pre).scatter(-1, index, value.relu())
        x = x + (9.0 - f[..., 5:6]) * self.d.W_dec[5]
        return x - f[..., 13:14] * self.d.W_dec[13]

    def run(self, call):
        """Plainly, and with the hook."""
        found = []
        for edited in (False, True):
            handle = edited and self.model.model.layers[1].register_forward_hook(self.edited)
            with torch.no_grad():
                found.append(call(self.model))
            if handle:
                handle.remove()
        return found


def test_prompts_are_those_of_plain_hooks(model, suite):
    prompts = [
        Prompt(clean="the cat", patch=None, answer=("a",), wrong=("b",)),
        Prompt(clean="a dog.", patch=None, answer=("c",), wrong=("d",)),
    ]
    encoded = encode_prompts(prompts, model.tokenizer, positions="sum")
    analysis = analysis_of(model, suite, encoded, reference="zero", positions="sum")
    record = rerun_prompts(analysis, EDIT)
    metrics = []
    for prompt, row in zip(prompts, record["prompts"], strict=True):
        tokens = torch.tensor([model.tokenizer(prompt.clean)["input_ids"]])
        logits = [x[0, -1] for x in Plain(suite).run(lambda m, t=tokens: m(t).logits)]
        right, wrong = (
            model.tokenizer(word)["input_ids"][0] for word in (prompt.answer[0], prompt.wrong[0])
        )
        differences = [float(x[right] - x[wrong]) for x in logits]
        assert [row["before"], row["after"]] == pytest.approx(differences, abs=1e-5)
        p, q = (x.double().log_softmax(-1) for x in logits)
        assert row["kl"] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-5)
        preferred = [prompt.answer[0] if d > 0 else prompt.wrong[0] for d in differences]
        assert [row["preferred_before"], row["preferred_after"]] == preferred
        metrics.append(differences)
    change = torch.tensor(metrics).diff(dim=1).mean()
    assert record["change"]["value"] == pytest.approx(float(change), abs=1e-5)
    low, high = record["change"]["interval"]
    assert low <= record["change"]["value"] <= high


def test_cross_entropy_and_divergence_of_a_text_are_those_of_plain_hooks(model, suite):
    blocks = torch.randint(1, 50, (3, 16), generator=torch.Generator().manual_seed(1))
    record = rerun_text(model, suite, EDIT, blocks)
    p, q = (x.log_softmax(-1)[:, :-1] for x in Plain(suite).run(lambda m: m(blocks).logits))
    following = blocks[:, 1:, None]
    for name, log_probs in (("ce_before", p), ("ce_after", q)):
        expected = -float(log_probs.gather(-1, following).mean())
        assert record[name]["value"] == pytest.approx(expected, abs=1e-5)
    kl = (p.exp() * (p - q)).sum(-1)
    assert record["kl"]["value"] == pytest.approx(float(kl.mean()), abs=1e-5)
    assert record["same"]["value"] == pytest.approx(
        float((p.argmax(-1) == q.argmax(-1)).float().mean()), abs=1e-6
    )
    first = record["most"][0]
    assert first["kl"] == pytest.approx(float(kl.max()), abs=1e-4)
    assert record["tokens"] == 3 * 15


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


def test_prompts_under_an_edit_to_the_patch_read_each_its_own(model, suite):
    pairs = [("the cat", "the bat"), ("a dog.", "a fog.")]
    prompts = [Prompt(clean=c, patch=p, answer=("a",), wrong=("b",)) for c, p in pairs]
    encoded = encode_prompts(prompts, model.tokenizer, positions="sum")
    analysis = analysis_of(model, suite, encoded, positions="sum")
    every = (
        Operation(node=Node(SITE, "*"), do="patch"),
        Operation(node=Node(SITE, "error"), do="patch"),
    )
    record = rerun_prompts(analysis, Edit(operations=every))
    patched = dataclasses.replace(encoded, clean=encoded.patch)
    swapped = rerun_prompts(analysis.on(patched), EDIT)
    # All of the stream goes to the patch's, so what comes out is what comes out of the patch.
    assert [row["after"] for row in record["prompts"]] == pytest.approx(
        [row["before"] for row in swapped["prompts"]], abs=1e-4
    )


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
