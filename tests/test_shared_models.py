"""A test that changes a shared model is found out, and the next one is given another."""

import pytest

from hooked_qwen.load import hook
from tests import shared_models
from tests.shared_models import drop_changed, shared
from tests.toys import toy_hf, toy_prompts, toy_tokenizer


def make():
    return hook(toy_hf(), tokenizer=toy_tokenizer(), name="toy")


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(shared_models, "MADE", {})
    monkeypatch.setattr(shared_models, "USED", set())
    return shared("toy", make)


def test_what_only_runs_is_given_out_again(model):
    model(toy_prompts().clean.tokens)
    assert drop_changed() == []
    assert shared("toy", make) is model


def test_a_model_that_no_test_asked_for_is_not_looked_at(model):
    drop_changed()
    add(model)
    assert drop_changed() == []
    shared("toy", make)
    assert drop_changed() == ["toy"]


def add(model):
    model.blocks[0].mlp.hook_out.add_hook(lambda x, hook: x)


def add_to_layer(model):
    model.original_model.model.layers[0].register_forward_hook(lambda *given: None)


def add_before(model):
    model.blocks[1].register_forward_pre_hook(lambda *given: None)


def add_backward(model):
    model.blocks[0].mlp.hook_out.register_full_backward_hook(lambda *given: None)


def set_forward(model):
    norm = model.original_model.model.norm
    norm.forward = norm.forward


def set_attention(model):
    model.original_model.set_attn_implementation("sdpa")


def set_weight(model):
    next(model.original_model.parameters()).data[0, 0] += 1


def open_weight(model):
    next(model.original_model.parameters()).requires_grad_(True)


def set_class(model):
    norm = model.original_model.model.norm
    norm.__class__ = type("OddNorm", (type(norm),), {})


def set_tokenizer(model):
    model.tokenizer = toy_tokenizer()


def set_template(model):
    model.tokenizer.chat_template = "{{ messages }}"


def set_end(model):
    model.tokenizer.eos_token = "ab"


def set_mode(model):
    model.set_use_split_qkv_input(True)


CHANGES = [
    add,
    add_to_layer,
    add_before,
    add_backward,
    set_forward,
    set_attention,
    set_weight,
    open_weight,
    set_class,
    set_tokenizer,
    set_template,
    set_end,
    set_mode,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_made_again(model, change):
    change(model)
    assert drop_changed() == ["toy"]
    assert shared("toy", make) is not model
    assert drop_changed() == []
