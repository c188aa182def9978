"""An edit rerun on prompts, against hooks on Hugging Face's own model."""

import dataclasses

import pytest
import torch

from circuits.edits.rerun import rerun_prompts
from circuits.prompts import Prompt, encode_prompts
from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.circuits.edits.plain_edit import EDIT, SITE, Plain, hooked_toy
from tests.toys import analysis_of


@pytest.fixture(scope="module")
def opened():
    return hooked_toy()


def test_prompts_are_those_of_plain_hooks(opened):
    model, suite = opened
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


def test_prompts_under_an_edit_to_the_patch_read_each_its_own(opened):
    model, suite = opened
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
