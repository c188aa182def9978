"""Every operation against hooks on Hugging Face's own model, written out here: logits, and text."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation, applied
from saes.operations import OPERATIONS
from tests.toys import shared_toy, toy_hf, toy_suite

SITE, LAYER, TOKENS, STEPS = "resid_post.1", 1, torch.tensor([[5, 9, 11, 2, 30]]), 30
FEATURE, OTHER, K = 5, 13, 5
PATCH, MEAN = 12.5, 7.5
VALUES = {"set": 4.0, "scale": -2.0, "add": 3.0, "clamp": (0.5, 1.5)}
BECOMES = {
    "zero": lambda f: f * 0,
    "mean": lambda f: f * 0 + MEAN,
    "patch": lambda f: f * 0 + PATCH,
    "set": lambda f: f * 0 + 4.0,
    "scale": lambda f: f * -2.0,
    "add": lambda f: f + 3.0,
    "clamp": lambda f: f.clip(0.5, 1.5),
}


@pytest.fixture(scope="module")
def case():
    model = shared_toy(dtype=torch.float32)
    return model, toy_suite(SITE, dtype=torch.float32), toy_hf(dtype=torch.float32)


def encoded(d, x):
    pre = x @ d.W_enc.T + d.b_enc
    value, index = pre.topk(K)
    return torch.zeros_like(pre).scatter(-1, index, value.relu())


class Plain:
    """A hook on the layer's output that counts the tokens it has seen: a cache runs each once."""

    def __init__(self, d, change, positions):
        self.d, self.change, self.positions, self.seen = d, change, positions, 0

    def __call__(self, module, args, x):
        at = torch.arange(self.seen, self.seen + x.shape[1])
        self.seen += x.shape[1]
        prompt = TOKENS.shape[1]
        where = {
            "all": at >= 0,
            "prompt": at < prompt,
            "generated": at >= prompt,
            "last": at >= prompt - 1,
        }
        chosen = where[self.positions] if isinstance(self.positions, str) else at == 2
        return torch.where(chosen[:, None], self.change(self.d, x), x)


def texts(model, *, with_hook=None, where=None):
    """Logits of the prompt, and 30 tokens after it, greedily and with a cache."""
    found = []
    for run in (
        lambda: model(TOKENS).logits,
        lambda: model.generate(
            TOKENS, attention_mask=torch.ones_like(TOKENS), max_new_tokens=STEPS,
            do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None,
        ),
    ):  # fmt: skip
        handle = with_hook and model.model.layers[LAYER].register_forward_hook(with_hook())
        with torch.no_grad():
            found.append(run())
        if handle:
            handle.remove()
    return found


def compared(case, edit, change, positions, **options):
    model, suite, plain = case
    with applied(model, suite, edit, **options):
        logits, text = texts(model.original_model)
    expected = texts(plain, with_hook=lambda: Plain(suite[SITE], change, positions))
    torch.testing.assert_close(logits, expected[0], atol=1e-5, rtol=0)
    assert text.shape[1] == TOKENS.shape[1] + STEPS
    assert torch.equal(text, expected[1])
    with torch.no_grad():
        unchanged = torch.allclose(logits, plain(TOKENS).logits, atol=1e-3)
    assert unchanged == (positions == "generated")


@pytest.mark.parametrize("do", list(OPERATIONS))
def test_an_operation_on_a_feature(case, do):
    positions = "last" if do in ("patch", "add") else "all"

    def change(d, x):
        f = encoded(d, x)
        new = BECOMES[do](f[..., FEATURE])
        return x + (new - f[..., FEATURE])[..., None] * d.W_dec[FEATURE]

    node = Node(SITE, FEATURE)
    operation = Operation(node=node, do=do, value=VALUES.get(do), positions=positions)
    edit = Edit(operations=(operation,), means={node: MEAN})
    compared(case, edit, change, positions, patch=lambda node: torch.full((1, 1), PATCH))


@pytest.mark.parametrize("positions", ["prompt", "generated", (2,)])
def test_a_condition_at_some_tokens(case, positions):
    def change(d, x):
        f = encoded(d, x)
        new = torch.where(f[..., OTHER] > 30, f[..., FEATURE] * 0 + 4.0, f[..., FEATURE])
        return x + (new - f[..., FEATURE])[..., None] * d.W_dec[FEATURE]

    when = Condition(node=Node(SITE, OTHER), above=30.0)
    operation = Operation(
        node=Node(SITE, FEATURE), do="set", value=4.0, positions=positions, when=when
    )
    model, suite, plain = case
    edit = Edit(operations=(operation,))
    with applied(model, suite, edit, must_fire=False):
        logits, text = texts(model.original_model)
    expected = texts(plain, with_hook=lambda: Plain(suite[SITE], change, positions))
    torch.testing.assert_close(logits, expected[0], atol=1e-5, rtol=0)
    assert torch.equal(text, expected[1])


def test_norm_outliers_stay_as_they_are(case):
    """In the prompt and in what is generated, of one operation and not of the other."""
    limit = 21.5
    model, *_ = case
    with capture(model, {Site.parse(SITE)}) as seen, torch.no_grad():
        model.original_model(TOKENS)
    above = seen[Site.parse(SITE)].norm(dim=-1) > limit
    assert above.any()
    assert not above.all()

    def change(d, x):
        f = encoded(d, x)
        small = x.norm(dim=-1, keepdim=True) <= limit
        move = (4.0 - f[..., FEATURE])[..., None] * d.W_dec[FEATURE]
        return x + small * move + (4.0 - f[..., OTHER])[..., None] * d.W_dec[OTHER]

    one, other = (Operation(node=Node(SITE, i), do="set", value=4.0) for i in (FEATURE, OTHER))
    spared = replace(one, norm_below=((Site.parse(SITE), limit),))
    compared(case, Edit(operations=(spared, other)), change, "all")
    with pytest.raises(AssertionError):
        compared(case, Edit(operations=(one, other)), change, "all")


@pytest.mark.parametrize("do", [name for name, kind in OPERATIONS.items() if kind.of_errors])
def test_an_operation_on_an_error(case, do):
    def change(d, x):
        written = encoded(d, x) @ d.W_dec + d.b_dec
        return written + BECOMES[do](x - written)

    node = Node(SITE, "error")
    edit = Edit(
        operations=(Operation(node=node, do=do, value=VALUES.get(do)),),
        means={node: torch.full((24,), MEAN)},
    )
    compared(case, edit, change, "all", patch=lambda node: torch.full((1, 1, 24), PATCH))


@pytest.mark.parametrize("do", list(OPERATIONS))
def test_an_operation_on_every_feature_but_some(case, do):
    def change(d, x):
        f = encoded(d, x)
        new = BECOMES[do](f)
        new[..., FEATURE] = f[..., FEATURE]
        return x + (new - f) @ d.W_dec

    node = Node(SITE, "*")
    operation = Operation(node=node, do=do, value=VALUES.get(do), besides=(Node(SITE, FEATURE),))
    edit = Edit(operations=(operation,), means={node: torch.full((20,), MEAN)})
    compared(case, edit, change, "all", patch=lambda node: torch.full((1, 1, 20), PATCH))


def test_what_is_excepted_at_a_position_is_changed_at_the_others():
    def change(d, x):
        f = encoded(d, x)
        new = f * 0
        new[:, 2:3, FEATURE] = f[:, 2:3, FEATURE]
        written = f @ d.W_dec + d.b_dec
        error = x - written
        zeroed = torch.zeros_like(error)
        zeroed[:, 4:5] = error[:, 4:5]
        return new @ d.W_dec + d.b_dec + zeroed

    edit = Edit(
        operations=(
            Operation(node=Node(SITE, "*"), do="zero", besides=(Node(SITE, FEATURE, 2),)),
            Operation(node=Node(SITE, "error"), do="zero", besides=(Node(SITE, "error", 4),)),
        )
    )
    # All but a bias is taken from the stream: in float32 what is left would be rounding.
    model, suite, plain = shared_toy(), toy_suite(SITE), toy_hf()
    with applied(model, suite, edit), torch.no_grad():
        logits = model.original_model(TOKENS).logits
    handle = plain.model.layers[LAYER].register_forward_hook(lambda m, a, x: change(suite[SITE], x))
    with torch.no_grad():
        expected = plain(TOKENS).logits
    handle.remove()
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_an_edit_and_its_inverse_leave_no_trace(case):
    model, suite, plain = case
    when = Condition(node=Node(SITE, OTHER), above=30.0)
    edit = Edit(
        operations=(
            Operation(node=Node(SITE, FEATURE), do="scale", value=3.0),
            Operation(node=Node(SITE, OTHER), do="add", value=2.0, when=when),
            Operation(node=Node(SITE, FEATURE), do="add", value=-1.5, positions="last"),
            Operation(node=Node(SITE, "error"), do="scale", value=0.5),
        )
    )
    with applied(model, suite, edit):
        logits, _ = texts(model.original_model)
    plainly, text = texts(plain)
    assert not torch.allclose(logits, plainly, atol=1e-2)
    with applied(model, suite, edit.then(edit.inverse())):
        again = texts(model.original_model)
    torch.testing.assert_close(again[0], plainly, atol=1e-5, rtol=0)
    assert torch.equal(again[1], text)


@pytest.mark.parametrize(
    ("do", "value", "told"),
    [
        ("zero", None, "zero of resid_post.1/5 has no inverse"),
        ("set", 2.0, "set by 2 of resid_post.1/5 has no inverse"),
        ("scale", 0.0, "scale by 0 of resid_post.1/5 has no inverse"),
        ("clamp", (0.0, 1.0), "only scale, add have one"),
    ],
)
def test_what_forgets_has_no_inverse(do, value, told):
    edit = Edit(operations=(Operation(node=Node(SITE, FEATURE), do=do, value=value),))
    with pytest.raises(ValueError, match=told):
        edit.inverse()
