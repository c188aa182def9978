"""A text run again under an edit: what prediction costs, against hooks on Hugging Face's model."""

import pytest
import torch

from circuits.edits.edited_model import Edited
from circuits.edits.rerun_text import CONTEXT, MOST, plain_text, rerun_text, run_text
from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.circuits.edits.plain_edit import EDIT, SITE, Plain, hooked_toy


@pytest.fixture(scope="module")
def opened():
    return hooked_toy()


def drawn(*shape):
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(1))


def test_cross_entropy_and_divergence_of_a_text_are_those_of_plain_hooks(opened):
    model, suite = opened
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


def test_the_tokens_that_change_most_stand_with_what_is_before_them(opened):
    model, suite = opened
    blocks = drawn(2, 20)
    most = rerun_text(model, suite, EDIT, blocks)["most"]
    assert len(most) == MOST
    assert [row["kl"] for row in most] == sorted((row["kl"] for row in most), reverse=True)
    texts = ["".join(model.tokenizer.convert_ids_to_tokens(row)) for row in blocks.tolist()]
    for row in most:
        assert any(
            (row["before"] + row["token"]).replace(" ", "Ġ").replace("\n", "Ċ") in text
            for text in texts
        )
        assert 0 <= row["p_after"] <= 1
        assert len(row["before"]) <= CONTEXT * len("<|endoftext|>")


def test_how_many_blocks_go_through_at_once_changes_nothing(opened, small_chunks):
    model, suite = opened
    edited, blocks = Edited(model=model, suite=suite, edit=EDIT), drawn(5, 8)
    together = run_text(model, plain_text(model, blocks), edited)
    small_chunks("circuits.edits.rerun_text.TOKENS_AT_ONCE", 16)
    apart = run_text(model, plain_text(model, blocks), edited)
    torch.testing.assert_close(apart.ce, together.ce, atol=1e-5, rtol=0)
    torch.testing.assert_close(apart.kl, together.kl, atol=1e-5, rtol=0)


def test_an_edit_that_changes_nothing_in_the_text_is_told(opened):
    model, suite = opened
    late = Edit(operations=(Operation(node=Node(SITE, 5, 30), do="zero"),))
    with pytest.raises(RuntimeError, match="no text that was run inside the block has such a"):
        rerun_text(model, suite, late, drawn(2, 8))
