"""Generation under an edit with the prompt's part held, against plain hooks on the toy's own code.

The plain side knows no cache: each token is a pass over all of the text, in which what belongs to
the prompt is as the modes say and the rest is the model's.
"""

from contextlib import ExitStack

import pytest
import torch
from torch.nn.functional import softmax
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from hooked_qwen.nodes import Node
from saes.edit import applied
from tests.toys import shared_toy, toy_hf
from tests.transcoders.test_interventions import (
    MODES,
    K,
    active,
    cross_layer_suite,
    edit_of,
    largest,
    logits_of,
    suite_of,
)
from tests.transcoders.toys import FAMILIES, TOKENS, toy_of
from transcoders.generation import generating
from transcoders.interventions import THE_MODEL, Mode
from transcoders.replacement import replace_mlps

NEW, P = 3, len(TOKENS)
MODELS = 1e-5
"Of the model, whose norms run in float32."


def written(model, new=NEW):
    """Greedy tokens, and the logits each was chosen by, of the last row."""
    found = model.original_model.generate(
        TOKENS.expand(2, -1),
        attention_mask=torch.ones(2, P, dtype=torch.long),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return found.sequences[:, P:], torch.stack(found.logits, 1)


class Plain:
    """One row after another, without a cache, written from the definitions."""

    def __init__(self, own, suite, mode, edit):
        self.own, self.suite, self.mode, self.edit = own, suite, mode, edit
        self.kept, self.recording = {}, True

    def keep(self, key, value):
        if self.recording:
            self.kept[key] = value
        return self.kept[key]

    def norm(self, key):
        """The prompt's tokens divided as in the plain prompt where norms are frozen."""

        def hooked(module, args, output):
            x = args[0]
            rms = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
            rms0 = self.keep(key, rms)
            if self.recording or self.mode.attention != "frozen":
                return output
            # Tokens are the second axis of all: of keys, [batch, pos, heads, d_head].
            held = x[:, :P] / rms0[:, :P] * module.weight
            return torch.cat([held, output[:, P:]], 1)

        return hooked

    def attention(self, number):
        """From the definition; the prompt's queries look as in the plain prompt where held."""
        attn = self.own.model.layers[number].self_attn

        def hooked(_module, args, kwargs, output):
            x = kwargs["hidden_states"]
            n = x.shape[1]
            q, k, v = (
                getattr(attn, f"{name}_proj")(x).view(1, n, -1, attn.head_dim) for name in "qkv"
            )
            if hasattr(attn, "q_norm"):
                q, k = attn.q_norm(q), attn.k_norm(k)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            q, k = apply_rotary_pos_emb(q, k, *kwargs["position_embeddings"])
            k, v = (t.repeat_interleave(attn.num_key_value_groups, 1) for t in (k, v))
            scores = q @ k.mT * attn.scaling
            hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
            pattern = softmax(scores.masked_fill(hidden, -torch.inf), -1)
            of_prompt = self.keep(("pattern", number), pattern)[:, :, :P, :P]
            if not self.recording and self.mode.attention != "free":
                pattern = pattern.clone()
                pattern[:, :, :P, :P] = of_prompt
            return attn.o_proj((pattern @ v).transpose(1, 2).flatten(2)), pattern

        return hooked

    def mlp(self, number):
        d = self.suite.get(f"mlp_out.{number}")

        def hooked(_module, args, output):
            x, out = args[0][0], output[0]
            out0 = self.keep(("out", number), out)[:P]
            held = self.mode.mlps != "model"
            if d is None:
                if not self.recording and held:
                    out = torch.cat([out0, out[P:]])
                return out[None]
            pre = x @ d.W_enc.T + d.b_enc
            value, index = pre.topk(K)
            f = torch.zeros_like(pre).scatter(-1, index, value.relu())
            f0, pre0 = self.keep(("f", number), f)[:P], self.keep(("pre", number), pre)[:P]
            skip = torch.zeros_like(out) if d.W_skip is None else x @ d.W_skip.T
            skip0 = self.keep(("skip", number), skip)[:P]
            if self.recording:
                return output
            if held:
                standing = {
                    "transcoders": f[:P],
                    "linear": f0 + (pre[:P] - pre0) * (f0 != 0),
                    "frozen": f0,
                }[self.mode.mlps]
                told = out0 + (standing - f0) @ d.W_dec + skip[:P] - skip0
                f, out = torch.cat([standing, f[P:]]), torch.cat([told, out[P:]])
            for node, change, at in self.edit:
                if node.site == f"mlp_out.{number}":
                    i = node.feature
                    out = out.clone()
                    out[at] += (change(f[at, i]) - f[at, i]).unsqueeze(-1) * d.W_dec[i]
            return out[None]

        return hooked

    def run(self, tokens):
        with ExitStack() as stack, torch.no_grad():
            for number, layer in enumerate(self.own.model.layers):
                attn = layer.self_attn
                hooks = [
                    (layer.input_layernorm, self.norm(("in", number)), {}),
                    (layer.post_attention_layernorm, self.norm(("mid", number)), {}),
                    (attn, self.attention(number), {"with_kwargs": True}),
                    (layer.mlp, self.mlp(number), {}),
                ]
                if hasattr(attn, "k_norm"):
                    hooks.append((attn.k_norm, self.norm(("key", number)), {}))
                for module, function, options in hooks:
                    stack.callback(module.register_forward_hook(function, **options).remove)
            stack.callback(self.own.model.norm.register_forward_hook(self.norm("last")).remove)
            return self.own(tokens[None], use_cache=False).logits[0, -1]

    def written(self):
        self.run(TOKENS)
        self.recording, text, found = False, TOKENS, []
        for _ in range(NEW):
            found.append(self.run(text))
            text = torch.cat([text, found[-1].argmax()[None]])
        return text[P:], torch.stack(found)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_tokens_and_logits_are_those_of_plain_hooks(family, mode):
    """Of features edited at a token of the prompt, at all tokens, and at those generated."""
    suite = suite_of([0, 2], skips=[2])
    model = shared_toy(family)
    nodes = [node for _, node in active(replace_mlps(model, suite, TOKENS), 6)]
    every = Node(nodes[1].site, nodes[1].feature)
    edit = edit_of((nodes[0], "scale", -3.0), (every, "add", 2.0), (nodes[-1], "set", 4.0))
    by_hand = [
        (nodes[0], lambda f: -3.0 * f, torch.tensor([nodes[0].position])),
        (every, lambda f: f + 2.0, slice(None)),
        (nodes[-1], lambda f: torch.full_like(f, 4.0), torch.tensor([nodes[-1].position])),
    ]
    with torch.no_grad():
        plain = written(model)
        with generating(model, suite, edit, mode):
            tokens, logits = written(model)
    expected_tokens, expected = Plain(toy_hf(family), suite, mode, by_hand).written()
    assert tokens[1].tolist() == expected_tokens.tolist()
    assert largest(logits[1] - expected) < MODELS * largest(expected)
    assert largest(logits[0] - plain[1][0]) < MODELS * largest(expected)
    assert (logits[1] - logits[0]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_what_changes_nothing_generates_as_the_model_does(family):
    model, suite = toy_of(family), suite_of([0, 2], skips=[2])
    ((_, node),) = active(replace_mlps(model, suite, TOKENS), 1)
    with torch.no_grad():
        plain_tokens, plain = written(model)
    for mode in MODES:
        with torch.no_grad(), generating(model, suite, edit_of((node, "scale", 1.0)), mode):
            tokens, logits = written(model)
        assert tokens.equal(plain_tokens)
        assert largest(logits - plain) < MODELS * largest(plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_nothing_held_it_is_generation_under_the_edit(family):
    model, suite = toy_of(family), cross_layer_suite()
    nodes = [node for _, node in active(replace_mlps(model, suite, TOKENS), 3)]
    edit = edit_of((nodes[0], "scale", -3.0), (Node(nodes[1].site, nodes[1].feature), "add", 2.0))
    with torch.no_grad():
        with applied(model, suite, edit):
            expected_tokens, expected = written(model)
        with generating(model, suite, edit, THE_MODEL):
            tokens, logits = written(model)
    assert tokens[1].equal(expected_tokens[1])
    assert largest(logits[1] - expected[1]) < MODELS * largest(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_token_is_that_of_the_intervention_on_the_prompt(family):
    """Not only with softmax attention, and no hook stays when all is let go."""
    model, suite = toy_of(family), suite_of([0, 1, 2])
    ((_, node),) = active(replace_mlps(model, suite, TOKENS), 1)
    edit = edit_of((node, "scale", 3.0))
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    for mode in MODES:
        expected = logits_of(model, suite, [edit], mode)
        with torch.no_grad(), generating(model, suite, edit, mode):
            _, logits = written(model, new=1)
        assert largest(logits[:, 0] - expected) < MODELS * largest(expected)
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks


def test_an_edit_that_does_nothing_is_told():
    model, suite = toy_of("qwen2"), suite_of([0, 2])
    ((_, node),) = active(replace_mlps(model, suite, TOKENS), 1)
    late = Node(node.site, node.feature, P + NEW + 3)
    with (
        pytest.raises(RuntimeError, match="was never done"),
        torch.no_grad(),
        generating(model, suite, edit_of((late, "zero", None)), Mode(attention="frozen")),
    ):
        written(model)
