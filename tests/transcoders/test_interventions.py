"""Interventions against plain hooks on Hugging Face's own model, and against the linear map."""

from contextlib import ExitStack
from itertools import product

import pytest
import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from saes.suite import Suite
from tests.toys import shared_toy, toy_hf
from tests.transcoders import toys
from tests.transcoders.toys import FAMILIES, TOKENS, toy_of
from transcoders.interventions import DIRECT, THE_GRAPH, THE_MODEL, Mode, intervened, moved
from transcoders.replacement import replace_mlps
from transcoders.sources import FEATURE

EXACT, MODELS = 1e-10, 1e-5
"Of our own float64, and of the model, whose norms run in float32."
ROWS_DIFFER = ("qwen3.5", "qwen3.5-moe")
"Their float32 parts round otherwise in a batch of another size, the first's on some processors."
MODES = [
    Mode(attention=a, mlps=m)
    for a, m in product(
        ("free", "patterns", "frozen"), ("model", "transcoders", "linear", "frozen")
    )
]
K = 4


def suite_of(layers, skips=()):
    return Suite(toys.suite_of(layers, skips=skips), {})


def cross_layer_suite():
    return Suite(toys.cross_layer_suite(), {})


def largest(x):
    return float(x.abs().max())


def edit_of(*operations, at=None):
    ops = [Operation(node=n, do=do, value=value) for n, do, value in operations]
    return Edit(operations=tuple(ops))


def logits_of(model, suite, edits, mode, tokens=TOKENS):
    with torch.no_grad(), intervened(model, suite, edits, mode):
        return model(tokens.expand(1 + len(edits), -1))[:, -1]


def active(replaced, n=4):
    """Some of a prompt's active features, as nodes."""
    sources = replaced.sources
    of = (sources.kind == FEATURE).nonzero().squeeze(-1)
    some = of[torch.linspace(0, len(of) - 1, n).long()]
    return [
        (s, Node(name, int(sources.feature[s]), int(sources.position[s])))
        for s in some.tolist()
        for name in [replaced.names[sources.dictionary[s]]]
    ]


class Plain:
    """Hooks on a Hugging Face model, written from the definitions of the modes."""

    def __init__(self, own, suite, mode):
        self.own, self.suite, self.mode = own, suite, mode
        self.layers, self.kept, self.recording = own.model.layers, {}, True

    def keep(self, key, value):
        if self.recording:
            self.kept[key] = value
        return self.kept[key]

    def frozen_norm(self, norm, x, key):
        rms = self.keep(key, (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt())
        return x / rms * norm.weight

    def attention(self, number):
        layer = self.layers[number]
        attn = layer.self_attn

        def hooked(_module, _args, kwargs, output):
            pattern = self.keep(("pattern", number), output[1])
            x = self.frozen_norm(layer.input_layernorm, self.entering[number], ("in", number))
            if self.recording or self.mode.attention == "free":
                return output
            if self.mode.attention == "patterns":
                x = layer.input_layernorm(self.entering[number])
            v = attn.v_proj(x).view(1, len(TOKENS), -1, attn.head_dim).transpose(1, 2)
            z = pattern @ v.repeat_interleave(attn.num_key_value_groups, 1)
            return attn.o_proj(z.transpose(1, 2).flatten(2)), pattern

        return hooked

    def norm(self, key):
        def hooked(module, args, output):
            found = self.frozen_norm(module, args[0], key)
            return found if self.mode.attention == "frozen" else output

        return hooked

    def mlp(self, number, edit):
        d = self.suite.get(f"mlp_out.{number}")

        def hooked(_module, args, output):
            x = args[0][0]
            out = self.keep(("out", number), output)[0]
            if d is None:
                return output if self.mode.mlps == "model" else out[None]
            pre = x @ d.W_enc.T + d.b_enc
            value, index = pre.topk(K)
            f = torch.zeros_like(pre).scatter(-1, index, value.relu())
            f0, pre0 = self.keep(("f", number), f), self.keep(("pre", number), pre)
            skip = 0.0 if d.W_skip is None else x @ d.W_skip.T
            skip0 = self.keep(("skip", number), skip)
            standing = {
                "model": f,
                "transcoders": f,
                "linear": f0 + (pre - pre0) * (f0 != 0),
                "frozen": f0,
            }[self.mode.mlps]
            if self.mode.mlps == "model":
                out = output[0]
            else:
                out = out + (standing - f0) @ d.W_dec + skip - skip0
            if not self.recording:
                out = edit(number, d, standing, out)
            return out[None]

        return hooked

    def logits(self, edit):
        def entered(number):
            return lambda _module, args, kwargs: self.entering.__setitem__(number, args[0])

        for self.recording in (True, False):
            self.entering = {}
            with ExitStack() as stack, torch.no_grad():
                for number, layer in enumerate(self.layers):
                    for handle in (
                        layer.register_forward_pre_hook(entered(number), with_kwargs=True),
                        layer.self_attn.register_forward_hook(
                            self.attention(number), with_kwargs=True
                        ),
                        layer.post_attention_layernorm.register_forward_hook(
                            self.norm(("mid", number))
                        ),
                        layer.mlp.register_forward_hook(self.mlp(number, edit)),
                    ):
                        stack.callback(handle.remove)
                stack.callback(self.own.model.norm.register_forward_hook(self.norm("last")).remove)
                found = self.own(TOKENS[None], output_attentions=True).logits[0, -1]
        return found


def edited_by_hand(operations):
    """The same operations as they are defined, on features at a position."""

    def edit(number, d, f, out):
        for node, do, value in operations:
            if node.site != f"mlp_out.{number}":
                continue
            at, i = node.position, node.feature
            if node.kind == "error":
                error = out[at] - f[at] @ d.W_dec - d.b_dec
                out = out.index_add(0, torch.tensor([at]), -error[None])
                continue
            f = f.clone()
            before, f[at, i] = f[at, i].clone(), {
                "zero": 0.0,
                "scale": f[at, i] * (value or 0),
                "set": value or 0,
                "add": f[at, i] + (value or 0),
            }[do]  # fmt: skip
            out = out.index_add(0, torch.tensor([at]), ((f[at, i] - before) * d.W_dec[i])[None])
        return out

    return edit


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_every_mode_is_what_plain_hooks_do(family, mode):
    """Of a single feature, of several that are one group, and of an error."""
    suite = suite_of([0, 2], skips=[2])
    model = shared_toy(family)
    nodes = [node for _, node in active(replace_mlps(model, suite, TOKENS), 6)]
    edits = [
        [(nodes[0], "zero", None)],
        [(nodes[1], "scale", -3.0)],
        [(nodes[2], "zero", None), (nodes[3], "set", 4.0), (nodes[-1], "scale", 2.5)],
        [(Node("mlp_out.0", "error", 3), "zero", None), (nodes[-2], "add", 3.0)],
    ]
    found = logits_of(model, suite, [edit_of(*ops) for ops in edits], mode)
    for row, operations in zip(found[1:], edits, strict=True):
        own = toy_hf(family)
        own.set_attn_implementation("eager")
        expected = Plain(own, suite, mode).logits(edited_by_hand(operations))
        change = largest(expected - found[0])
        assert change > 1e-4
        assert largest(row - expected) < MODELS * max(1.0, change)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_changes_nothing_leaves_the_logits_as_they_are(family):
    model, suite = toy_of(family), suite_of([0, 2], skips=[2])
    ((_, node),) = active(replace_mlps(model, suite, TOKENS), 1)
    with torch.no_grad():
        expected = model(TOKENS[None])[0, -1]
    limit = MODELS if family in ROWS_DIFFER else EXACT
    for mode in MODES:
        found = logits_of(model, suite, [edit_of((node, "scale", 1.0))], mode)
        assert largest(found - expected) < limit * largest(expected)
        assert largest(found[1] - found[0]) < EXACT * largest(expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suite", [lambda: suite_of([0, 2], skips=[0, 2]), cross_layer_suite])
def test_the_linear_mode_is_what_the_graph_predicts(family, suite):
    """(to - value) times the slope by all paths."""
    model, suite = toy_of(family), suite()
    replaced = replace_mlps(model, suite, TOKENS)
    W_U = model.unembed.original_component.weight
    direction = (W_U[3] - W_U[9])[None]
    totals = replaced.totals(replaced.last_token(direction))
    some = active(replaced, 7)
    edits = [edit_of((node, "scale", 3.0)) for _, node in some]
    logits = logits_of(model, suite, edits, THE_GRAPH)
    change = (logits[1:] - logits[0]) @ (torch.eye(len(W_U))[3] - torch.eye(len(W_U))[9]).double()
    for found, (s, _) in zip(change, some, strict=True):
        expected = 2 * replaced.sources.activation[s] * totals.slope[s]
        limit = MODELS if family in ROWS_DIFFER else EXACT
        assert abs(float(found - expected)) < limit * max(1.0, abs(float(expected)))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_many_edits_side_by_side_are_each_of_them_alone(mode):
    model, suite = toy_of("qwen3"), cross_layer_suite()
    nodes = [node for _, node in active(replace_mlps(model, suite, TOKENS), 5)]
    edits = [edit_of((node, "zero", None), (nodes[-1], "add", 1.0)) for node in nodes]
    together = logits_of(model, suite, edits, mode)
    for row, edit in zip(together[1:], edits, strict=True):
        alone = logits_of(model, suite, [edit], mode)
        assert largest(row - alone[1]) < EXACT * largest(row)
        assert largest(row - together[0]) > 1e-6


def test_with_nothing_held_it_is_the_edit_in_the_model():
    model, suite = toy_of("qwen3"), suite_of([0, 1, 2])
    nodes = [node for _, node in active(replace_mlps(model, suite, TOKENS), 3)]
    edits = [edit_of((node, "zero", None)) for node in nodes]
    found = logits_of(model, suite, edits, THE_MODEL)
    for row, edit in zip(found[1:], edits, strict=True):
        with torch.no_grad(), edit.applied(_Opened(model, suite)):
            expected = model(TOKENS.expand(4, -1))[1, -1]
        assert largest(row - expected) < 1e-12 * largest(expected)


class _Opened:
    def __init__(self, model, suite):
        self.model, self.suite = model, suite


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_moving_a_node_by_a_known_amount_is_the_edit(mode):
    model, suite = toy_of("qwen2"), cross_layer_suite()
    replaced = replace_mlps(model, suite, TOKENS)
    some = active(replaced, 3)
    edits = [edit_of((node, "zero", None)) for _, node in some]
    expected = logits_of(model, suite, edits, mode)
    moves = {Site("mlp_out", n): torch.zeros(4, len(TOKENS), 24).double() for n in range(3)}
    for row, (s, node) in enumerate(some, 1):
        dictionary = suite[node.site]
        for site, rows in dictionary.by_site(dictionary.W_dec).items():
            moves[site][row, node.position] = (
                -replaced.sources.activation[s] * rows[int(node.feature)]
            )
    with torch.no_grad(), moved(model, suite, moves, mode):
        found = model(TOKENS.expand(4, -1))[:, -1]
    assert largest(found - expected) < EXACT * largest(expected)


def test_an_edit_that_does_nothing_is_told_among_others():
    model, suite = toy_of("qwen2"), suite_of([0, 1])
    ((_, node),) = active(replace_mlps(model, suite, TOKENS), 1)
    off = Node("mlp_out.0", next(i for i in range(20) if _off(model, suite, i)))
    edits = [edit_of((node, "zero", None)), edit_of((off, "zero", None))]
    with pytest.raises(RuntimeError, match=f"{off}, to zero, was off at every token"):
        logits_of(model, suite, edits, THE_GRAPH)
    with torch.no_grad(), intervened(model, suite, edits, DIRECT, must_fire=False) as firing:
        model(TOKENS.expand(3, -1))
    assert [each.fired for each in firing] == [True, False]


def _off(model, suite, i):
    sources = replace_mlps(model, suite, TOKENS).sources
    return not ((sources.feature == i) & (sources.dictionary == 0)).any()


def test_a_word_that_is_no_mode_is_refused():
    with pytest.raises(ValueError, match="attention is 'held': expected free, patterns, frozen"):
        Mode.of("held", "model")
    with pytest.raises(ValueError, match="mlps is 'none': expected model, transcoders, linear, fr"):
        Mode.of("free", "none")
