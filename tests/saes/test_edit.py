"""Operations on features and errors, against the same arithmetic written out by hand."""

import pytest
import torch

from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation, applied
from tests.toys import toy_hf, toy_suite

TOKENS = torch.tensor([[5, 9, 11, 2, 30], [4, 8, 15, 16, 23]])
STEPS = 12
SITE = "resid_post.1"


@pytest.fixture(scope="module")
def case():
    hf = toy_hf(dtype=torch.float32)
    suite = toy_suite("mlp_out.0", SITE, dtype=torch.float32)
    return hook(hf, name="toy"), suite


def strongest(model, suite, name, n=3):
    """Features that are on at most tokens."""
    seen = {}
    module = model.original_model.model.layers[1]
    handle = module.register_forward_hook(lambda m, a, out: seen.update(x=out))
    with torch.no_grad():
        model.original_model(TOKENS)
    handle.remove()
    return (suite[name].encode(seen["x"]).dense() > 0).sum((0, 1)).topk(n).indices.tolist()


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model.original_model(tokens).logits


def logits_with(model, change, tokens=TOKENS):
    """With the stream after layer 1 replaced by `change` of it."""
    module = model.original_model.model.layers[1]
    handle = module.register_forward_hook(lambda m, a, out: change(out))
    try:
        return logits(model, tokens)
    finally:
        handle.remove()


def by_hand(dictionary, become):
    """Features `become` other ones, one after another; the stream moves along."""

    def change(x):
        f = dictionary.encode(x).dense()
        after = f.clone()
        for i, where, new in become:
            after[..., i] = torch.where(where(f), new(after[..., i]), after[..., i])
        return x + (after - f) @ dictionary.W_dec

    return change


def everywhere(f):
    return torch.ones_like(f[..., 0], dtype=torch.bool)


def test_operations_are_done_in_order_by_their_arithmetic(case):
    model, suite = case
    a, b, c = strongest(model, suite, SITE)
    edit = Edit(
        operations=(
            Operation(node=Node(SITE, a), do="scale", value=3.0),
            Operation(node=Node(SITE, a), do="add", value=1.5),
            Operation(node=Node(SITE, a), do="clamp", value=(0.5, 2.5)),
            Operation(node=Node(SITE, b), do="set", value=4.0),
            Operation(node=Node(SITE, b, 3), do="zero"),
            Operation(node=Node(SITE, c), do="mean"),
        ),
        means={Node(SITE, c): 0.75},
    )
    third = lambda f: everywhere(f) & (torch.arange(f.shape[1]) == 3)  # noqa: E731
    change = by_hand(
        suite[SITE],
        [
            (a, everywhere, lambda x: (3 * x + 1.5).clamp(0.5, 2.5)),
            (b, everywhere, lambda x: torch.full_like(x, 4.0)),
            (b, third, torch.zeros_like),
            (c, everywhere, lambda x: torch.full_like(x, 0.75)),
        ],
    )
    with applied(model, suite, edit):
        found = logits(model)
    torch.testing.assert_close(found, logits_with(model, change))
    assert not torch.allclose(found, logits(model))


def test_the_same_done_to_many_features_is_done_to_each_as_often_as_it_is_said(case):
    model, suite = case
    a, b, c = strongest(model, suite, SITE)
    twice = [(i, "scale") for i in (a, b, a, c, c)] + [(b, "mean"), (c, "mean")]
    edit = Edit(
        operations=tuple(
            Operation(node=Node(SITE, i), do=do, value=0.5 if do == "scale" else None)
            for i, do in twice
        ),
        means={Node(SITE, b): 3.0, Node(SITE, c): 4.0},
    )
    became = [(a, everywhere, lambda x: x / 4), (b, everywhere, lambda x: x * 0 + 3),
              (c, everywhere, lambda x: x * 0 + 4)]  # fmt: skip
    with applied(model, suite, edit):
        found = logits(model)
    torch.testing.assert_close(found, logits_with(model, by_hand(suite[SITE], became)))


def test_a_condition_looks_at_the_same_token(case):
    model, suite = case
    a, b, _ = strongest(model, suite, SITE)
    when = Condition(node=Node(SITE, b), above=0.3)
    edit = Edit(operations=(Operation(node=Node(SITE, a), do="set", value=5.0, when=when),))
    change = by_hand(suite[SITE], [(a, lambda f: f[..., b] > 0.3, lambda x: x * 0 + 5.0)])
    with applied(model, suite, edit):
        found = logits(model)
    torch.testing.assert_close(found, logits_with(model, change))


def test_errors_are_set_to_zero_their_mean_and_scaled(case):
    model, suite = case
    dictionary, mean = suite[SITE], torch.linspace(-1, 1, suite[SITE].W_dec.shape[1])
    node = Node(SITE, "error")
    edit = Edit(
        operations=(
            Operation(node=node, do="zero", positions=(0, 1)),
            Operation(node=node, do="mean", positions=(2,)),
            Operation(node=node, do="scale", value=2.0, positions=(3, 4)),
        ),
        means={node: mean},
    )

    def change(x):
        written = dictionary(x)
        error = x - written
        error[:, :2] = 0
        error[:, 2] = mean
        error[:, 3:] *= 2
        return written + error

    with applied(model, suite, edit):
        found = logits(model)
    torch.testing.assert_close(found, logits_with(model, change))


def test_a_node_goes_to_the_patchs_value_where_there_is_one(case):
    model, suite = case
    a, *_ = strongest(model, suite, SITE)
    value = torch.rand(*TOKENS.shape)
    edit = Edit(operations=(Operation(node=Node(SITE, a), do="patch"),))
    with applied(model, suite, edit, patch=lambda node: value):
        found = logits(model)
    change = by_hand(suite[SITE], [(a, everywhere, lambda x: value)])
    torch.testing.assert_close(found, logits_with(model, change))
    with pytest.raises(ValueError, match="there is no patch here"), applied(model, suite, edit):
        pass


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "last"])
def test_generation_is_the_same_with_a_cache_and_without(case, positions):
    model, suite = case
    a, b, _ = strongest(model, suite, SITE)
    edit = Edit(
        operations=(
            Operation(node=Node(SITE, a), do="add", value=6.0, positions=positions),
            Operation(node=Node("mlp_out.0", 3), do="set", value=4.0, positions=positions),
            Operation(node=Node(SITE, b), do="zero", positions=positions),
        )
    )
    with applied(model, suite, edit):
        cached, plain = (generated(model, use_cache=cache) for cache in (True, False))
    assert torch.equal(cached, plain)
    assert torch.equal(plain, greedy_by_hand(model, suite, edit, positions))


def generated(model, *, use_cache):
    return model.original_model.generate(
        TOKENS,
        attention_mask=torch.ones_like(TOKENS),
        max_new_tokens=STEPS,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
    )


def greedy_by_hand(model, suite, edit, positions):
    """The whole text at every step, the streams moved by hand."""
    text, prompt = TOKENS, TOKENS.shape[1]

    def at(f):
        columns = torch.arange(f.shape[1])
        where = {
            "all": columns >= 0,
            "prompt": columns < prompt,
            "generated": columns >= prompt,
            "last": columns >= prompt - 1,
        }[positions]
        return where.expand(f.shape[:2])

    add, _, zero = edit.operations
    first = by_hand(suite["mlp_out.0"], [(3, at, lambda x: x * 0 + 4.0)])
    second = by_hand(
        suite[SITE],
        [(add.node.feature, at, lambda x: x + 6.0), (zero.node.feature, at, lambda x: x * 0)],
    )
    module = model.original_model.model.layers[0].mlp
    handle = module.register_forward_hook(lambda m, a, out: first(out))
    for _ in range(STEPS):
        following = logits_with(model, second, text)[:, -1].argmax(-1, keepdim=True)
        text = torch.cat([text, following], 1)
    handle.remove()
    return text


def test_edits_are_composed_and_undone(case):
    model, suite = case
    a, b, _ = strongest(model, suite, SITE)
    one = Edit(operations=(Operation(node=Node(SITE, a), do="zero"),))
    two = Edit(operations=(Operation(node=Node(SITE, b), do="set", value=2.0),))
    with applied(model, suite, one.then(two).without([Node(SITE, b)])):
        found = logits(model)
    with applied(model, suite, one):
        assert torch.equal(found, logits(model))


def test_only_the_dictionaries_that_are_edited_are_read(case):
    model, suite = case
    asked = []

    class Watched(type(suite)):
        def __getitem__(self, name):
            asked.append(str(name))
            return super().__getitem__(name)

    watched = Watched({Site.parse(name): suite[name] for name in suite}, {})
    edit = Edit(operations=(Operation(node=Node("mlp_out.0", 1), do="set", value=1.0),))
    with applied(model, watched, edit):
        logits(model)
    assert set(asked) == {"mlp_out.0"}
