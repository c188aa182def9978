"""Inside the rules the model says the same, and its gradients are those of a linear model."""

import warnings

import pytest
import torch
from einops import rearrange, repeat
from torch import nn

from hooked_qwen.forward import last_logits, resume, run_recording, unembed
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.relevance import relevance_rules
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, pad_left
from tests.hooked_qwen.test_load import toy_hybrid, toy_moe
from tests.toys import FAMILIES, SIZES, VOCABULARY, toy, toy_hf

LAYERS = SIZES["num_hidden_layers"]
EMBED = Site("embed")
# Norms and softmax run in float32 whatever the model's type.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def varied_hf(family, dtype=torch.float64, *, value_bias=True):
    """A toy whose gains are not one and whose biases, where it has any, are not zero."""
    model = toy_hf(family, dtype)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and (value_bias or not name.endswith("v_proj.bias")):
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.data += 0.3 * noise
    return model.requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return hook(varied_hf(family), name="toy")


def batch_of(*lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    return pad_left(rows, pad=0)


BATCH = batch_of(6, 6, 6)


def metric(logits):
    return logits[:, 5] - 0.5 * logits[:, 9]


def leaf(x):
    return x.detach().requires_grad_()


def run(model, site, batch=BATCH):
    """Logits, the tensor at `site`, and the gradient of the summed metric to it."""
    with intervene(model, {EMBED: leaf}), capture(model, [site]) as seen:
        logits = last_logits(model, batch)
    (gradient,) = torch.autograd.grad(metric(logits).sum(), seen[site])
    return logits.detach(), seen[site].detach(), gradient


def hooks_of(model):
    return [
        (name, tuple(m._forward_hooks.values()), tuple(m._forward_pre_hooks.values()))
        for name, m in model.named_modules()
    ]


def normed(norm, x):
    return norm.weight * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def pattern(hf, attention, x):
    """Softmax weights of a layer that reads `x`, with grouped heads and rotary positions."""
    d, groups = attention.head_dim, attention.num_key_value_groups
    q, k = (
        rearrange(project(x), "b pos (head d) -> b head pos d", d=d)
        for project in (attention.q_proj, attention.k_proj)
    )
    if hasattr(attention, "q_norm"):
        q, k = q * normed(attention.q_norm, q), k * normed(attention.k_norm, k)
    cos, sin = hf.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    turn = torch.cat([torch.zeros(d // 2, d // 2), -torch.eye(d // 2)], 1)
    turn = torch.cat([turn, torch.cat([torch.eye(d // 2), torch.zeros(d // 2, d // 2)], 1)]).to(x)
    q, k = (t * cos + t @ turn.T * sin for t in (q, k))
    k = repeat(k, "b head pos d -> b (head group) pos d", group=groups)
    future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return (q @ k.mT / d**0.5).masked_fill(future, -torch.inf).softmax(-1)


def local_logits(hf, x, start, constants):
    """Last logits of the linear model when `x` enters layer `start`, written from the weights.

    An empty `constants` is filled with what the rules hold constant, at this `x`; a full one is
    used as it is, which makes the result an affine function of `x`.
    """

    def constant(name, make):
        if name not in constants:
            constants[name] = make().detach()
        return constants[name]

    def norm(name, module, x):
        return x * constant(name, lambda: normed(module, x))

    for i, layer in list(enumerate(hf.model.layers))[start:]:
        attention, mlp = layer.self_attn, layer.mlp
        read = norm(f"ln1.{i}", layer.input_layernorm, x)
        weights = constant(f"pattern.{i}", lambda a=attention, r=read: pattern(hf, a, r))
        v = rearrange(
            attention.v_proj(read), "b pos (head d) -> b head pos d", d=attention.head_dim
        )
        v = repeat(v, "b head pos d -> b (head g) pos d", g=attention.num_key_value_groups)
        x = x + attention.o_proj(rearrange(weights @ v, "b head pos d -> b pos (head d)"))
        read = norm(f"ln2.{i}", layer.post_attention_layernorm, x)
        gate, up = mlp.gate_proj(read), mlp.up_proj(read)
        act = gate * constant(f"ratio.{i}", lambda g=gate: g.sigmoid())
        act_clean = constant(f"act.{i}", lambda a=act: a)
        up_clean = constant(f"up.{i}", lambda u=up: u)
        x = x + mlp.down_proj((act * up_clean + act_clean * up) / 2)
    return hf.lm_head(norm("ln_final", hf.model.norm, x))[:, -1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logits_inside_are_hugging_faces_bit_for_bit_and_no_path_is_rebuilt(family, dtype):
    hf = varied_hf(family, dtype)
    expected = hf(BATCH.tokens).logits
    model = hook(hf, name="toy")
    with warnings.catch_warnings(), relevance_rules(model), intervene(model, {EMBED: leaf}):
        warnings.simplefilter("error")
        logits = model(BATCH.tokens)
    assert logits.requires_grad
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("layer", range(LAYERS + 1))
def test_gradients_are_those_of_the_linear_model_written_out(family, model, layer):
    site = Site("resid_pre", layer) if layer < LAYERS else Site("resid_post", LAYERS - 1)
    with relevance_rules(model):
        logits, x, gradient = run(model, site)
    hf, constants = varied_hf(family), {}
    clean = local_logits(hf, x, layer, constants)
    torch.testing.assert_close(clean, logits, **CLOSE)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(metric(local_logits(hf, x, layer, constants)).sum(), x)
    torch.testing.assert_close(gradient, expected, **CLOSE)


def test_gradients_predict_the_linear_model_far_from_the_clean_run(family, model):
    """No autograd on the other side: an affine function moves by its gradient times the move."""
    with relevance_rules(model):
        _, x, gradient = run(model, EMBED)
    hf, constants = varied_hf(family), {}
    move = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    before, after = (metric(local_logits(hf, y, 0, constants)) for y in (x, x + move))
    torch.testing.assert_close((gradient * move).sum((1, 2)), after - before, **CLOSE)


@pytest.mark.parametrize("site", [EMBED, *(Site("resid_post", i) for i in range(LAYERS))], ids=str)
def test_relevance_is_conserved_in_every_prompt(family, site):
    model = hook(varied_hf(family, value_bias=False), name="toy")
    with relevance_rules(model):
        logits, x, gradient = run(model, site)
    torch.testing.assert_close((x * gradient).sum((1, 2)), metric(logits), **CLOSE)
    _, x, plain = run(model, site)
    assert not torch.allclose((x * plain).sum((1, 2)), metric(logits), rtol=0.1)


def test_a_bias_of_the_values_takes_relevance_of_its_own():
    model = hook(varied_hf("qwen2"), name="toy")
    with relevance_rules(model):
        logits, x, gradient = run(model, EMBED)
    assert ((x * gradient).sum((1, 2)) - metric(logits)).abs().min() > 1e-3


def test_gradients_are_plain_before_and_after_but_not_inside(model):
    _, _, before = run(model, EMBED)
    with relevance_rules(model):
        _, _, inside = run(model, EMBED)
    _, _, after = run(model, EMBED)
    assert torch.equal(before, after)
    assert (inside - before).norm() > 0.1 * before.norm()


def test_the_rules_hold_for_a_backward_pass_after_the_block(model):
    with relevance_rules(model), intervene(model, {EMBED: leaf}), capture(model, [EMBED]) as seen:
        logits = last_logits(model, BATCH)
    (late,) = torch.autograd.grad(metric(logits).sum(), seen[EMBED])
    with relevance_rules(model):
        _, _, inside = run(model, EMBED)
    assert torch.equal(late, inside)


def test_resuming_follows_the_rules_too(model):
    _, arguments = run_recording(model, BATCH)
    with relevance_rules(model):
        logits, x, expected = run(model, Site("resid_pre", 1))
        x.requires_grad_()
        resumed = unembed(model, resume(model, x, 1, arguments))[:, -1]
        (gradient,) = torch.autograd.grad(metric(resumed).sum(), x)
    torch.testing.assert_close(resumed, logits)
    torch.testing.assert_close(gradient, expected)


def test_edits_and_captures_work_inside(model):
    site = Site("mlp_out", 1)
    triple = {site: lambda x: 3 * x}
    with intervene(model, triple):
        expected = last_logits(model, BATCH)
    with (
        relevance_rules(model),
        intervene(model, {EMBED: leaf}),
        capture(model, [site]) as before,
        intervene(model, triple),
        capture(model, [site]) as after,
    ):
        logits = last_logits(model, BATCH)
    assert torch.equal(logits, expected)
    inner, outer = torch.autograd.grad(metric(logits).sum(), [after[site], before[site]])
    torch.testing.assert_close(outer, 3 * inner)


def test_the_product_of_a_gate_has_its_whole_gradient(model):
    mlp = model.blocks[0].mlp
    seen = []
    handle = mlp.out.hook_in.register_forward_hook(lambda _m, _a, output: seen.append(output))
    site = Site("mlp_out", 0)
    with relevance_rules(model), intervene(model, {EMBED: leaf}), capture(model, [site]) as out:
        logits = last_logits(model, BATCH)
    handle.remove()
    product, written = torch.autograd.grad(metric(logits).sum(), [seen[0], out[site]])
    torch.testing.assert_close(product, written @ mlp.out.weight)


def test_padding_on_the_left_changes_no_gradient(family):
    model = hook(varied_hf(family, torch.float32), name="toy")
    batch = batch_of(7, 3, 5)
    with relevance_rules(model):
        together, _, gradients = run(model, EMBED, batch)
        assert torch.equal(together, last_logits(model, batch))
        for i, mask in enumerate(batch.mask):
            tokens = batch.tokens[i, mask][None]
            alone = Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
            _, _, expected = run(model, EMBED, alone)
            torch.testing.assert_close(gradients[i, mask], expected[0], atol=1e-4, rtol=1e-4)
            assert not gradients[i, ~mask].any()


def test_everything_is_restored_after_an_exception(model):
    def fail():
        assert hooks_of(model) != before
        raise KeyError("inside")

    before = hooks_of(model)
    with pytest.raises(KeyError, match="inside"), relevance_rules(model):
        fail()
    assert hooks_of(model) == before


def test_a_block_inside_another_is_refused_and_leaves_the_outer_one(model):
    with relevance_rules(model):
        _, _, expected = run(model, EMBED)
        with (
            pytest.raises(ValueError, match="inside relevance_rules already"),
            relevance_rules(model),
        ):
            pass
        _, _, gradient = run(model, EMBED)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (toy_moe, r"blocks\.0\.mlp \(Qwen3MoeSparseMoeBlock\)"),
        (toy_hybrid, r"blocks\.0\.linear_attn \(Qwen3_5GatedDeltaNet\)"),
    ],
)
def test_a_module_without_a_rule_is_named(make, named):
    model = hook(make(), name="toy")
    before = hooks_of(model)
    with pytest.raises(ValueError, match=named) as error, relevance_rules(model):
        pass
    assert "the rules know Qwen2Attention" in str(error.value)
    assert hooks_of(model) == before


def test_an_activation_without_a_rule_is_named():
    hf = toy_hf()
    hf.model.layers[1].mlp.act_fn = nn.GELU()
    model = hook(hf, name="toy")
    with (
        pytest.raises(ValueError, match=r"blocks\.1\.mlp\.act_fn \(GELU\)"),
        relevance_rules(model),
    ):
        pass


@pytest.mark.parametrize("mode", ["use_split_qkv_input", "use_attn_in", "compatibility mode"])
def test_modes_that_compute_around_the_modules_are_refused(mode):
    model = toy()
    if mode == "compatibility mode":
        model.enable_compatibility_mode(no_processing=True)
    else:
        getattr(model, f"set_{mode}")(True)
    with pytest.raises(ValueError, match=f"as loaded, this one is in {mode}"):
        relevance_rules(model).__enter__()
