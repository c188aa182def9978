"""Texts token by token, with what is on at each."""

import pytest
import torch

from circuits.features.named import Named
from circuits.features.search import in_text
from circuits.features.strips import read_text, strips
from hooked_qwen.load import load
from hooked_qwen.nodes import Node
from saes.suite import load_suite
from tests.toys import speaking_toy, toy_suite


@pytest.fixture(scope="module")
def bundled():
    model, suite = load("bundled", device="cpu"), load_suite("bundled")
    return model, suite, Named(model, suite, {"resid_post.3/86": "dreams"})


def test_texts_on_a_page_have_whole_characters_and_every_activation(bundled):
    model, suite, named = bundled
    asked = Node("resid_post.3", 86)
    texts = [("positive", "The boys 复 sit."), ("negative", "The boy sits.")]
    (first, second), labels = strips(model, suite, texts, [asked], named)
    assert (first["kind"], second["kind"]) == ("positive", "negative")
    assert [run["text"] for run in first["runs"]] == ["The", " boys", " ", "复", " sit", "."]
    assert first["runs"][3] == {"text": "复", "first": 3, "pieces": ["<0xE5>", "<0xA4>", "<0x8D>"]}
    assert labels["resid_post.3/86"] == "dreams"
    record = in_text(model, suite, "The boys 复 sit.", named)
    for top, token in zip(first["tops"], record["tokens"], strict=True):
        assert top == [[f["feature"], f["activation"]] for f in token["features"]]
    # What a token shows can be looked at in all texts.
    for text in (first, second):
        for at, row in enumerate(text["tops"]):
            for feature, activation in row:
                assert [at, activation] in text["on"][feature]
    (short, _), _ = strips(model, suite, texts, [asked], named, longest=2)
    assert len(short["runs"]) == 2


def test_a_token_shows_what_writes_most_in_all_dictionaries_together():
    model = speaking_toy(dtype=torch.float32)
    suite = toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)
    read, wide = (read_text(model, suite, "abc de", on_a_token=n) for n in (2, 40))
    for few, many in zip(read.tops, wide.tops, strict=True):
        assert few == many[:2]
        sizes = [abs(a) * float(suite[n.site].W_dec[int(n.feature)].norm()) for n, a in many]
        assert sizes == pytest.approx(sorted(sizes, reverse=True))
    asked = [node for node, _ in wide.tops[1]]
    for node, where in wide.on(asked).items():
        of = suite[node.site]
        assert {at for at, _ in where} <= set(range(len(wide.ids)))
        assert int(node.feature) < of.n_features
    assert {at for at, _ in wide.on([asked[0]])[asked[0]]} >= {1}


def test_a_text_without_tokens_is_told():
    model = speaking_toy(dtype=torch.float32)
    with pytest.raises(ValueError, match="the text has no tokens"):
        read_text(model, toy_suite("resid_post.0", dtype=torch.float32), "")
