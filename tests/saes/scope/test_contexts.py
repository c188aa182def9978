"""Contexts of a text: what the dictionary makes of each, and how text is cut."""

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import token_blocks
from saes.scope.contexts import ContextConfig, read_contexts
from tests.toys import speaking_toy, toy_suite

TEXT = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? " * 6
CONFIG = ContextConfig(tokens=96, block_length=16, length=4)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_contexts_hold_what_the_dictionary_makes_of_each_row(family):
    model = speaking_toy(family)
    suite = toy_suite("resid_post.1", "mlp_out.2")
    found = read_contexts(model, suite, ["resid_post.1", "mlp_out.2"], [TEXT], config=CONFIG)
    rows = list(token_blocks([TEXT], model.tokenizer, length=16))[:6]
    for name, contexts in found.items():
        assert len(contexts) == 24
        for number, row in enumerate(rows):
            assert contexts.tokens[4 * number : 4 * number + 4].flatten().tolist() == row.tolist()
            with capture(model, {Site.parse(name)}) as seen, torch.no_grad():
                model(row[None])
            x = seen[Site.parse(name)]
            counted = mean_weights(x, torch.ones(1, 16, dtype=torch.bool)) > 0
            dense = suite[name].encode(x).dense()[0].clamp_min(0) * counted[0, :, None]
            for feature in range(20):
                on, values = contexts.of(feature)
                here = torch.zeros(16, dtype=torch.float64)
                for context, value in zip(on.tolist(), values, strict=True):
                    if context // 4 == number:
                        here[4 * (context % 4) : 4 * (context % 4) + 4] = value.double()
                torch.testing.assert_close(here, dense[:, feature].double(), atol=1e-5, rtol=1e-5)
        counts = [len(contexts.of(feature)[0]) for feature in range(20)]
        assert contexts.counts().tolist() == counts


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"length": 5, "block_length": 16}, "contexts of 5 tokens are not cut from rows of 16"),
        ({"tokens": 8, "block_length": 16, "length": 4}, "tokens is 8: expected at least one row"),
    ],
)
def test_how_text_is_cut_is_checked(fields, match):
    with pytest.raises(ValueError, match=match):
        ContextConfig(**fields)


def test_too_little_text_is_said():
    model = speaking_toy()
    with pytest.raises(ValueError, match="shorter than one row of 16"):
        read_contexts(model, toy_suite("mlp_out.0"), ["mlp_out.0"], ["ab"], config=CONFIG)
