"""Edits that weights alone do, and why others are none of them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from circuits.edits.fold import CannotFold, fold, is_linear, plain_weights, saved_model
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.edit import Condition, Edit, Operation, applied
from saes.suite import Suite
from tests.circuits.test_several_sites import cross_layer
from tests.toys import SIZES, shared_toy, toy_suite

TOKENS = torch.tensor([[4, 8, 15, 16, 23, 42], [3, 1, 4, 1, 5, 9]])


def edit_of(node, do, value=None, **more):
    return Edit(operations=(Operation(node=Node.parse(node), do=do, value=value, **more),))


def all_on(site, width=3):
    """As many signed features as are kept: what they read, at every token."""
    generator = torch.Generator().manual_seed(2)
    at, d = Site.parse(site), SIZES["hidden_size"]
    spec = DictionarySpec(source=at, target=at, k=width, signed=True)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 4

    weights = {"W_enc": draw(width, d), "b_enc": draw(width), "W_dec": draw(width, d)}
    return Suite({site: SparseDictionary(spec, weights | {"b_dec": draw(d)})}, {})


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_several_operations_on_always_on_features_are_one_map_and_one_bias(tmp_path, family):
    model, suite = shared_toy(family), all_on("attn_out.1")
    do = (("attn_out.1/0", "scale", -2.0), ("attn_out.1/2", "set", 1.5), ("attn_out.1/0", "add", 4))
    edit = Edit(operations=tuple(op for each in do for op in edit_of(*each).operations))
    own = {name: weight.clone() for name, weight in plain_weights(model).items()}
    folded = fold(model, suite, edit)
    assert folded.changed == tuple(
        f"model.layers.1.self_attn.o_proj.{part}" for part in ("weight", "bias")
    )
    assert folded.where_on == ()
    saved_model(folded.config, folded.weights).save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        found = again(TOKENS).logits
        with applied(model, suite, edit):
            expected = model(TOKENS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for name, weight in plain_weights(model).items():
        assert torch.equal(weight, own[name]), "the model itself stays as it is"


def test_a_feature_with_an_activation_function_is_told_as_exact_only_where_it_is_on():
    suite = toy_suite("mlp_out.1")
    assert is_linear(all_on("mlp_out.1")["mlp_out.1"])
    assert not is_linear(suite["mlp_out.1"])
    d = suite["mlp_out.1"]
    without_bias = {**d.state_dict(), "b_enc": torch.zeros_like(d.b_enc)}
    suite = Suite({"mlp_out.1": SparseDictionary(d.spec, without_bias)}, {})
    folded = fold(shared_toy(), suite, edit_of("mlp_out.1/5", "scale", 0.5))
    assert folded.where_on == (Node("mlp_out.1", 5),)
    assert folded.changed == ("model.layers.1.mlp.down_proj.weight",)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_of("resid_post.1/error", "zero"), "resid_post.1/error is no single feature"),
        (edit_of(f"resid_post.1/{EVERY}", "zero"), r"resid_post.1/\* is no single feature"),
        (edit_of("resid_post.1/5@2", "zero"), "zero of resid_post.1/5@2 is done at some tokens"),
        (edit_of("resid_post.1/5", "add", 1.0, positions="last"), "is done at some tokens only"),
        (
            edit_of("attn_out.1/5", "add", 1.0, norm_below=((Site("attn_out", 1), 9.0),)),
            "is done at some tokens only",
        ),
        (
            edit_of("attn_out.1/5", "zero", when=Condition(node=Node("resid_post.0", 3), above=1)),
            "is done at some tokens only",
        ),
        (edit_of("clt.0/3", "add", 1.0), "clt.0 writes several sites"),
        (edit_of("attn_out.1/5", "clamp", (0.0, 1.0)), "clamp is no affine map of the feature"),
        (edit_of("mlp_out.2/5", "zero"), "read elsewhere than it is written: only add can be"),
        (edit_of("resid_mid.0/5", "zero"), "no weights write resid_mid.0 alone"),
        (edit_of("resid_post.1/5", "zero"), "no matrix writes the whole stream, which resid_post"),
        (edit_of("resid_post.1/5", "add", 1.0), "a qwen3 model has no bias in down_proj to add to"),
    ],
)  # fmt: skip
def test_what_weights_cannot_do_is_told(edit, message):
    plain = toy_suite("attn_out.1", "resid_post.0", "resid_post.1", "resid_mid.0")
    made = {name: plain[name] for name in plain}
    made["mlp_out.2"] = toy_suite("mlp_in.2-mlp_out.2")["mlp_out.2"]
    made["clt.0"] = cross_layer(0, SIZES["hidden_size"])
    with pytest.raises(CannotFold, match=message):
        fold(shared_toy(), Suite(made, {}), edit)


def test_weights_of_another_model_are_refused_by_name():
    model = shared_toy()
    weights = plain_weights(model)
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match="do not fit Qwen3ForCausalLM: model.norm.weight, extra"):
        saved_model(model.original_model.config, weights | {"extra": torch.zeros(1)})
