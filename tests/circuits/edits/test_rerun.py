"""An edit rerun on prompts, text and generation, against hooks on Hugging Face's own model."""

import dataclasses

import pytest
import torch

from circuits.edits.rerun import rerun_prompts, rerun_text
from circuits.prompts import Prompt, encode_prompts
from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.toys import analysis_of, speaking_toy, toy_hf, toy_suite

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
