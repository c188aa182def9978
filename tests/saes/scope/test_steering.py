"""Steering against hooks on Hugging Face's own model; strength 0 changes no bit."""

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import applied
from saes.operations import VALUED
from saes.scope.steering import (
    Direction,
    encoder_vector,
    feature_direction,
    means_vector,
    random_direction,
    steering_edit,
    vector_node,
    with_vectors,
)
from saes.scope.usage import Usage
from tests.toys import shared_toy, toy_hf, toy_suite

NAME, LAYER, FEATURE, K = "resid_post.1", 1, 5, 5
SITE = Site.parse(NAME)
TOKENS, STEPS = torch.tensor([[5, 9, 11, 2, 30]]), 12
STRENGTHS = {"add": 1.5, "set": 2.0, "scale": -2.0, "clamp": 0.1}
BECOMES = {
    "add": lambda f, alpha: f + alpha,
    "set": lambda f, alpha: f * 0 + alpha,
    "scale": lambda f, alpha: f * STRENGTHS["scale"],
    "clamp": lambda f, alpha: f.clamp(-abs(alpha), abs(alpha)),
}


def moved(suite):
    """The suite with an encoder's direction and a difference of means."""
    x = torch.randn(6, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positive = torch.tensor([True, False] * 3)
    vectors = [encoder_vector(suite, Node(NAME, FEATURE)), means_vector(x, positive)]
    return with_vectors(suite, {SITE: vectors}), vectors, x, positive


def directions(suite):
    """A feature and two vectors, all as long."""
    usage = Usage(density={NAME: torch.ones(20)}, largest={NAME: torch.full((20,), 7.0)})
    own = feature_direction(suite, Node(NAME, FEATURE), usage)
    others = [
        Direction(method=method, node=vector_node(SITE, i), unit=own.norm, norm=own.norm)
        for i, method in enumerate(("encoder direction", "difference of means"))
    ]
    return [own, *others]


def run(model, **options):
    """Logits of the prompt, and those of every step of what is written, with a cache."""
    with torch.no_grad():
        found = model.generate(
            TOKENS,
            attention_mask=torch.ones_like(TOKENS),
            max_new_tokens=STEPS,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
        return [model(TOKENS).logits, found.sequences, torch.stack(found.logits)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_strength_0_changes_no_bit(family, dtype):
    model = shared_toy(family, dtype)
    suite, *_ = moved(toy_suite(NAME, dtype=torch.float32))
    plain = run(model.original_model)
    for direction in directions(suite):
        edit = steering_edit(direction, 0.0)
        with applied(model, suite, edit):
            same = run(model.original_model)
        for found, expected in zip(same, plain, strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
        with applied(model, suite, steering_edit(direction, 1.0)):
            assert not torch.equal(run(model.original_model)[0], plain[0])


@pytest.mark.parametrize("do", VALUED)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_it_is_what_a_hook_on_the_layer_does(do, which):
    """Of a feature's decoder row, an encoder's row, a difference of means."""
    model, plain = shared_toy(dtype=torch.float32), toy_hf(dtype=torch.float32)
    own = toy_suite(NAME, dtype=torch.float32)
    suite, _, x, positive = moved(own)
    direction, d = directions(suite)[which], own[NAME]
    row = d.W_enc[FEATURE]
    zero, one = x[~positive].mean(0), x[positive].mean(0)
    way = ((one - zero) / (one - zero).norm()).float()

    def coordinate(h):
        if which == 0:
            pre = h @ d.W_enc.T + d.b_enc
            value, index = pre.topk(K)
            return torch.zeros_like(pre).scatter(-1, index, value.relu())[..., FEATURE]
        if which == 1:
            return (h @ row + d.b_enc[FEATURE]) / row.norm()
        return (h - zero.float()) @ way

    along = [d.W_dec[FEATURE], row / row.norm(), way][which]
    alpha = STRENGTHS[do] * direction.unit

    def steer(module, args, h):
        f = coordinate(h)
        return h + (BECOMES[do](f, alpha) - f)[..., None] * along

    with applied(model, suite, steering_edit(direction, STRENGTHS[do], do=do)):
        found = run(model.original_model)
    handle = plain.model.layers[LAYER].register_forward_hook(steer)
    expected = run(plain)
    handle.remove()
    torch.testing.assert_close(found[0], expected[0], atol=2e-4, rtol=1e-4)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], atol=2e-4, rtol=1e-4)
    assert not torch.allclose(found[0], run(plain)[0], atol=1e-2)


def test_it_can_be_in_the_prompt_or_in_what_is_written():
    model = shared_toy(dtype=torch.float32)
    suite, *_ = moved(toy_suite(NAME, dtype=torch.float32))
    direction = directions(suite)[0]
    plain = run(model.original_model)[0]
    moved_at = {}
    for during in ("all", "prompt", "last", "generated"):
        edit = steering_edit(direction, 3.0, during=during)
        with applied(model, suite, edit, must_fire=False), torch.no_grad():
            logits = model.original_model(TOKENS).logits
        moved_at[during] = (logits != plain).any(-1)[0].tolist()
    assert moved_at["all"] == moved_at["prompt"] == [True] * 5
    assert moved_at["last"] == [False] * 4 + [True]
    assert moved_at["generated"] == [False] * 5


def test_a_control_moves_as_far():
    suite = toy_suite(NAME, dtype=torch.float32)
    density = torch.linspace(0.01, 0.9, 20)
    density[3] = 0
    usage = Usage(density={NAME: density}, largest={NAME: torch.full((20,), -7.0)})
    own = feature_direction(suite, Node(NAME, FEATURE), usage)
    assert own.unit == -7.0
    assert own.norm == pytest.approx(7 * float(suite[NAME].W_dec[FEATURE].norm()))
    drawn = [random_direction(suite, own, usage, seed=seed) for seed in range(20)]
    assert len({other.node for other in drawn}) > 3
    for other in drawn:
        assert other.node.feature not in (FEATURE, 3)
        length = abs(other.unit) * float(suite[NAME].W_dec[other.node.feature].norm())
        assert length == pytest.approx(own.norm)
    few = Usage(density={NAME: torch.eye(20)[FEATURE]}, largest=usage.largest)
    assert random_direction(suite, own, few) is None


def test_a_random_feature_is_about_as_often_on():
    suite = toy_suite(NAME, dtype=torch.float32)
    density = torch.full((20,), 0.5)
    density[[FEATURE, 7]] = torch.tensor([0.001, 0.002])
    usage = Usage(density={NAME: density}, largest={NAME: torch.ones(20)})
    own = feature_direction(suite, Node(NAME, FEATURE), usage)
    assert random_direction(suite, own, usage, nearest=1).node.feature == 7
    taken = [Node(NAME, 7)]
    assert random_direction(suite, own, usage, taken=taken, nearest=1).node.feature != 7


def test_a_feature_that_is_never_on_has_no_maximum():
    suite = toy_suite(NAME, dtype=torch.float32)
    usage = Usage(density={NAME: torch.zeros(20)}, largest={NAME: torch.zeros(20)})
    with pytest.raises(ValueError, match="on at no token of the text, so its maximum is no unit"):
        feature_direction(suite, Node(NAME, FEATURE), usage)
    assert feature_direction(suite, Node(NAME, FEATURE), usage, unit="activation").unit == 1.0


def test_in_units_of_the_token_all_features_go_as_far():
    suite = toy_suite(NAME, dtype=torch.float32)
    usage = Usage(density={NAME: torch.ones(20)}, largest={NAME: torch.arange(20.0)})
    at_token = {NAME: 3.5}
    for feature in range(20):
        found = feature_direction(suite, Node(NAME, feature), usage, "token", at_token=at_token)
        assert found.unit == 3.5
        assert found.norm == pytest.approx(3.5 * float(suite[NAME].W_dec[feature].norm()))
    with pytest.raises(
        ValueError, match=f"no feature of {NAME} is on at the neutral prompt's last"
    ):
        feature_direction(suite, Node(NAME, FEATURE), usage, "token", at_token={NAME: 0.0})


def test_there_is_no_encoder_direction_where_a_dictionary_reads_elsewhere():
    suite = toy_suite("mlp_in.1-mlp_out.1")
    assert encoder_vector(suite, Node("mlp_out.1", 3)) is None
    x = torch.ones(4, 3)
    assert means_vector(x, torch.tensor([True, True, False, False])) is None
