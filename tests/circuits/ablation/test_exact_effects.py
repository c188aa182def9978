"""Effects of single nodes: the oracle and an estimate against plain hooks, and sets of one."""

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import metrics_with
from circuits.discovery.ranking import rank_nodes
from circuits.graph import Node
from hooked_qwen.sites import Site
from saes.nodes import NodeSet
from tests.circuits.dense import dense, nodes_that_move
from tests.toys import analysis_of, full_suite, shared_toy, toy_hf, toy_prompts


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts(n=5), batch_size=3)


@pytest.fixture(scope="module")
def case(analysis):
    return analysis.model, analysis.suite, analysis.prompts


def test_a_node_that_moves_on_no_prompt_has_no_effect(analysis):
    state = analysis.states[0]
    still = [i for i in range(20) if not dense(state, "mlp_out.0").change[:, 2, i].any()]
    effects = exact_effects(analysis, state, [Node("mlp_out.0", still[0], 2)])
    assert not effects.any()


def plain_run(module, hf, tokens, edit=None):
    """Last logits, and what went into and came out of `module`, to whose output `edit` is added."""
    seen = {}

    def hook(_module, args, output):
        first = output[0] if isinstance(output, tuple) else output
        seen["in"], seen["out"] = (args[0] if args else None), first
        if edit is None:
            return None
        return (first + edit, *output[1:]) if isinstance(output, tuple) else first + edit

    handle = module.register_forward_hook(hook)
    logits = hf(tokens).logits[:, -1]
    handle.remove()
    return logits, seen


def plain_change(node, dictionary, clean, patch):
    """How a site's tensor changes when the node moves, from the dictionary's weights alone."""
    read = "in" if dictionary.source != dictionary.target else "out"
    pre = [torch.relu(s[read] @ dictionary.W_enc.T + dictionary.b_enc) for s in (clean, patch)]
    f = [x * (x >= x.topk(5, dim=-1).values[..., -1:]) for x in pre]
    if node.feature == "error":
        errors = [
            s["out"] - x @ dictionary.W_dec - dictionary.b_dec
            for s, x in zip((clean, patch), f, strict=True)
        ]
        change = errors[1] - errors[0]
    else:
        change = (f[1] - f[0])[..., node.feature, None] * dictionary.W_dec[node.feature]
    only = torch.zeros_like(change)
    only[:, node.position] = change[:, node.position]
    return only


MODULES = {
    "resid_post": lambda layer: layer,
    "attn_out": lambda layer: layer.self_attn,
    "mlp_out": lambda layer: layer.mlp,
}


def gap(logits, prompts):
    """How far the answer's logit is above the wrong one's."""
    rows = torch.arange(len(prompts))
    right, wrong = (torch.tensor(ids)[:, 0] for ids in (prompts.answer_ids, prompts.wrong_ids))
    return (logits[rows, right] - logits[rows, wrong]).double()


@torch.no_grad()
def test_exact_effects_equal_plain_hugging_face_hooks():
    """The oracle recomputed with nothing of ours but the dictionaries' weights."""
    analysis = analysis_of(shared_toy(), full_suite(), toy_prompts())
    (state,) = analysis.states
    suite, prompts, hf = analysis.suite, analysis.prompts, toy_hf()
    chosen = [n for n in nodes_that_move(analysis, state) if n.position in (1, 4)][::7]
    assert len(chosen) > 20
    ours = exact_effects(analysis, state, chosen)
    for node, effect in zip(chosen, ours, strict=True):
        site = Site.parse(node.site)
        module = MODULES[site.kind](hf.model.layers[site.layer])
        before, clean = plain_run(module, hf, prompts.clean.tokens)
        _, patch = plain_run(module, hf, prompts.patch.tokens)
        change = plain_change(node, suite[site], clean, patch)
        after, _ = plain_run(module, hf, prompts.clean.tokens, change)
        expected = gap(after, prompts) - gap(before, prompts)
        torch.testing.assert_close(effect, expected, atol=1e-10, rtol=0, msg=str(node))


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 2e-6)], ids=["float64", "float32"]
)
def test_estimates_equal_gradients_of_plain_hugging_face_hooks(dtype, atol):
    """Attribution patching by autograd through Hugging Face's model, with the weights alone."""
    suite, prompts, hf = full_suite(dtype), toy_prompts(), toy_hf(dtype=dtype)
    given = shared_toy(dtype=dtype), suite, prompts
    ranking, _ = rank_nodes(analysis_of(*given, estimator="patching"))
    estimates = [(n, e) for n, e in ranking.inner() if n.site != "embed"][::23]
    assert len(estimates) > 20
    for node, estimate in estimates:
        site = Site.parse(node.site)
        module = MODULES[site.kind](hf.model.layers[site.layer])
        with torch.no_grad():
            _, patch = plain_run(module, hf, prompts.patch.tokens)
        start = torch.zeros(*prompts.clean.tokens.shape, hf.config.hidden_size, dtype=dtype)
        logits, clean = plain_run(module, hf, prompts.clean.tokens, start.requires_grad_())
        (gradient,) = torch.autograd.grad(gap(logits, prompts).sum(), start)
        with torch.no_grad():
            change = plain_change(node, suite[site], clean, patch)
        expected = float((gradient * change).sum().double()) / len(prompts)
        assert estimate == pytest.approx(expected, abs=atol), node


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_a_node_s_effect_is_that_of_ablating_the_set_of_it(case, positions):
    """To the patch, all else left: the two oracles, by moves and by masks, are one."""
    analysis = analysis_of(*case, positions=positions, batch_size=3)
    nodes = rank_nodes(analysis)[0].inner().nodes()[::40]
    assert {node.kind for node in nodes} == {"feature", "error"}
    found = torch.cat([exact_effects(analysis, s, nodes) for s in analysis.states], 1)
    clean = torch.cat([analysis.metric(s.logits, s.rows) for s in analysis.states]).double()
    kept = [NodeSet.of([node]).complement() for node in nodes]
    expected = metrics_with(analysis, kept, "patch") - clean
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_neither_order_nor_company_changes_an_effect(analysis):
    state = analysis.states[0]
    nodes = nodes_that_move(analysis, state)[::30]
    told = []
    together = exact_effects(analysis, state, nodes, report=told.append)
    backwards = exact_effects(analysis, state, nodes[::-1])
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-9, rtol=0)
    for i in range(0, len(nodes), 5):
        alone = exact_effects(analysis, state, [nodes[i]])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-9, rtol=0)
    assert sum(told) == len(nodes)
    assert not exact_effects(analysis, state, []).numel()
