"""The edge oracle against plain Hugging Face hooks, and edge weights against the oracle."""

import dataclasses
from itertools import product

import pytest
import torch

from circuits.ablation import exact_effects
from circuits.ablation.path_patching import exact_edges
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import gradients_at_clean
from circuits.graph import Node
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.suite import Suite
from tests.circuits.dense import dense, nearer, responding_as_clean
from tests.toys import (
    analysis_of,
    full_suite,
    padded_on_the_left,
    shared_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
)

LOGIT = Node("logit", "logit")


def prepare(suite, n=3, reference="patch"):
    analysis = analysis_of(shared_toy(), suite, toy_prompts(n=n), reference=reference)
    (state,) = analysis.states
    return analysis, state, gradients_at_clean(analysis, state)


@pytest.fixture(scope="module")
def case():
    return prepare(full_suite())


@pytest.fixture(scope="module")
def no_streams():
    """Sites in two layers with none in the stream: edges cross modules that nobody watches."""
    return prepare(toy_suite("mlp_out.0", "attn_out.1", "mlp_in.2-mlp_out.2"))


def nodes_at(case, site, positions):
    """The three features that move most, and the error, at each position (None: summed)."""
    if site == "embed":
        return [Node(site, "token", p) for p in positions]
    found = []
    for p in positions:
        change = dense(case[1], site).change[:, slice(None) if p is None else [p]]
        strongest = change.abs().sum((0, 1)).topk(3).indices.tolist()
        found += [Node(site, i, p) for i in (*strongest, "error")]
    return found


def between(case, source, target, at=(1, 5), to=(1, 5)):
    ends = [LOGIT] if target == "logit" else nodes_at(case, target, to)
    return [(u, d) for u in nodes_at(case, source, at) for d in ends]


class Plain:
    """Hugging Face's model with every site cut by a hook on its module."""

    def __init__(self, suite, state):
        self.hf, self.suite, self.state = toy_hf(), suite, state

    def module(self, site):
        if site.kind == "embed":
            return self.hf.model.embed_tokens
        layer = self.hf.model.layers[site.layer]
        parts = {"attn_out": layer.self_attn, "resid_post": layer}
        return parts.get(site.kind, layer.mlp)

    def run(self, leaving):
        """What arrives at each site, what each MLP reads, and the last logits."""
        arrived = {}

        def hook(site):
            def cut(_module, args, output):
                is_tuple = isinstance(output, tuple)
                arrived[site] = output[0] if is_tuple else output
                if site.kind == "mlp_out":
                    arrived[Site("mlp_in", site.layer)] = args[0]
                new = leaving.get(site, arrived[site])
                return (new, *output[1:]) if is_tuple else new

            return cut

        sites = [Site("embed"), *self.suite.writes]
        handles = [self.module(s).register_forward_hook(hook(s)) for s in sites]
        with torch.no_grad():
            logits = self.hf(self.state.clean.tokens).logits[:, -1]
        for handle in handles:
            handle.remove()
        return arrived, logits

    def features(self, site, arrived):
        d = self.suite[site]
        pre = (arrived[d.source] @ d.W_enc.T + d.b_enc).relu()
        f = pre * (pre >= pre.topk(5, dim=-1).values[..., -1:])
        return f, arrived[site] - f @ d.W_dec - d.b_dec

    def move(self, node):
        if node.site == "embed":
            change = self.state.embed_change
        else:
            site = Site.parse(node.site)
            change = self.state.errors[site].change
            if node.feature != "error":
                i = node.feature
                change = dense(self.state, site).change[..., i, None] * self.suite[site].W_dec[i]
        only = torch.zeros_like(change)
        at = slice(None) if node.position is None else node.position
        only[:, at] = change[:, at]
        return only

    def edge(self, gradients, metric, source, target):
        clean, _ = self.run({})
        held = {s: clean[s] for s in (Site("embed"), *self.suite.writes)}
        site = Site.parse(source.site)
        before, logits = self.run(held)
        after, new_logits = self.run(held | {site: held[site] + self.move(source)})
        if target == LOGIT:
            rows = self.state.rows
            return float((metric(new_logits, rows) - metric(logits, rows)).sum())
        end = Site.parse(target.site)
        at = slice(None) if target.position is None else [target.position]
        (f, error), (new_f, new_error) = (self.features(end, a) for a in (before, after))
        if target.feature == "error":
            return float(((new_error - error) * gradients[end])[:, at].sum())
        i = target.feature
        slope = gradients[end] @ self.suite[end].W_dec[i]
        return float(((new_f - f)[..., i] * slope)[:, at].sum())


TYPES = [
    ("attn_out.1", "mlp_out.1"),  # into a transcoder
    ("attn_out.2", "mlp_out.2"),  # into an SAE
    ("attn_out.1", "resid_post.1"),
    ("mlp_out.1", "resid_post.1"),
    ("resid_post.0", "attn_out.1"),
    ("resid_post.1", "mlp_out.2"),
    ("resid_post.0", "resid_post.1"),
    ("embed", "attn_out.0"),
    ("embed", "mlp_out.0"),
    ("resid_post.2", "logit"),
]


def agree_with_plain_hooks(case, edges):
    analysis, state, gradients = case
    plain = Plain(analysis.suite, state)
    ours = exact_edges(analysis, state, gradients, edges).sum(1)
    expected = [plain.edge(gradients, analysis.metric, u, d) for u, d in edges]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert expected.abs().max() > 1e-3, "edges that carry nothing prove nothing"
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "target"), TYPES)
def test_exact_edges_equal_plain_hugging_face_hooks(case, source, target):
    edges = between(case, source, target, at=(1,), to=(1, 5))
    edges += between(case, source, target, at=(None,), to=(None,))
    edges += between(case, source, target, at=(1,), to=(None,))[:2]
    agree_with_plain_hooks(case, [*edges[:6], *edges[-8:]])


@pytest.mark.parametrize(
    ("source", "target"),
    [("mlp_out.0", "mlp_out.2"), ("attn_out.1", "mlp_out.2"), ("mlp_out.0", "logit")],
)
def test_edges_run_through_modules_that_no_site_watches(no_streams, source, target):
    agree_with_plain_hooks(no_streams, between(no_streams, source, target)[:8])


def mixed(case):
    """Edges of every type, some with positions and some without."""
    edges = []
    for source, target in TYPES:
        edges += between(case, source, target)
        edges += between(case, source, target, at=(None,), to=(None,))
    return edges


def moved_by(case, share):
    """The same case with every move made `share` as large, so that no feature switches."""
    analysis, state, gradients = case
    return analysis, responding_as_clean(nearer(state, share)), gradients


def estimated(case, edges):
    nodes = {node for edge in edges for node in edge if node != LOGIT}
    weights = edge_weights(*case, nodes)
    return torch.tensor([weights.get(edge, 0.0) for edge in edges], dtype=torch.float64)


def always_active(suite):
    """The same dictionaries with every feature on: what they do is affine, nothing switches."""
    dictionaries = {}
    for site, d in suite.items():
        spec = dataclasses.replace(d.spec, architecture="relu", k=None)
        weights = {"W_enc": d.W_enc, "b_enc": d.b_enc + 100, "W_dec": d.W_dec, "b_dec": d.b_dec}
        dictionaries[site] = SparseDictionary(spec, weights)
    return Suite(dictionaries, {})


def test_edge_weights_miss_the_oracle_by_the_square_of_the_move():
    """Halving every move quarters what the weights get wrong, where no feature switches."""
    case = prepare(always_active(full_suite()))
    edges = mixed(case)

    def gap(share):
        near = moved_by(case, share)
        return (exact_edges(*near, edges).sum(1) - estimated(near, edges)).abs().sum()

    assert float(gap(1e-2) / gap(5e-3)) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("attn_out.1", "resid_post.1"),
        ("mlp_out.1", "resid_post.1"),
        ("resid_post.0", "resid_post.1"),
    ],
)
def test_edge_weights_are_exact_along_the_stream(case, source, target):
    """Between two tensors of the stream everything held is a constant: the path is the identity,
    and a small move leaves the same features active."""
    near = moved_by(case, 1e-3)
    edges = between(near, source, target)
    ours, estimates = exact_edges(*near, edges).sum(1), estimated(near, edges)
    assert estimates.abs().max() > 1e-6
    torch.testing.assert_close(ours, estimates, atol=1e-10, rtol=1e-9)


def test_a_feature_that_the_move_switches_off_is_read_as_off(case):
    """Moved far along its own encoder row, a feature's edge is minus its activation times its
    gradient, where the first-order weight goes on past zero."""
    analysis, state, gradients = case
    suite = analysis.suite
    lower, upper = Site("resid_post", 0), Site("resid_post", 1)
    i = int(dense(state, upper).f[0, 4].argmax())
    push = torch.zeros_like(state.errors[lower].error)
    push[:, 4] = -100 * suite[upper].W_enc[i]
    error = state.errors[lower]
    pushed = dataclasses.replace(error, reference=error.error + push)
    state = dataclasses.replace(state, errors=state.errors | {lower: pushed})
    edge = (Node("resid_post.0", "error", 4), Node("resid_post.1", i, 4))
    slope = gradients[upper][:, 4] @ suite[upper].W_dec[i]
    expected = -(dense(state, upper).f[:, 4, i] * slope).sum()
    ours = exact_edges(analysis, state, gradients, [edge]).sum(1)
    torch.testing.assert_close(ours, expected.unsqueeze(0), atol=1e-10, rtol=0)
    assert estimated((analysis, state, gradients), [edge]).abs() > 10 * ours.abs()


def test_neither_order_nor_company_nor_run_size_changes_an_edge(case):
    edges = mixed(case)
    assert len(edges) > 2 * exact_effects.ROWS_AT_ONCE, "several runs"
    together = exact_edges(*case, edges)
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    shuffled = exact_edges(*case, [edges[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], atol=1e-6, rtol=0)
    for i in range(0, len(edges), 80):
        alone = exact_edges(*case, [edges[i]])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-6, rtol=0)


def test_batches_of_prompts_stand_side_by_side(case):
    whole, *_ = case
    analysis = analysis_of(whole.model, whole.suite, toy_prompts(n=3), batch_size=2)
    edges, parts = mixed(case), []
    for state in analysis.states:
        gradients = gradients_at_clean(analysis, state)
        parts.append(exact_edges(analysis, state, gradients, edges))
    whole = exact_edges(*case, edges)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_padding_changes_no_edge():
    suite, prompts = full_suite(torch.float32), toy_prompts(n=2)
    model = shared_toy(dtype=torch.float32)
    results = []
    for version in (prompts, padded_on_the_left(prompts)):
        analysis = analysis_of(model, suite, version)
        (state,) = analysis.states
        gradients = gradients_at_clean(analysis, state)
        edges = [e for e in mixed((analysis, state)) if e[0].position is None]
        results.append(exact_edges(analysis, state, gradients, edges))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-3)


def test_between_sites_without_a_direct_path_plain_hooks_find_nothing_either(case):
    """All pairs of sites, those before and beside each other too."""
    analysis, state, gradients = case
    plain, joined, apart = Plain(analysis.suite, state), 0, 0
    for source, target in product(analysis.suite, repeat=2):
        edges = between(case, source, target, at=(1,), to=(1, 5))[::7]
        found = exact_edges(analysis, state, gradients, edges).sum(1)
        if found.any():
            joined += 1
            continue
        apart += 1
        assert all(abs(plain.edge(gradients, analysis.metric, *edge)) < 1e-12 for edge in edges)
    assert joined > 10
    assert apart > 40


def test_pairs_that_no_edge_can_join_are_zero_without_a_run(case):
    token, late = Node("embed", "token", 1), Node("resid_post.0", 3, 4)
    pairs = [
        (token, Node("attn_out.1", 3, 4)),  # the stream is cut in between
        (Node("resid_post.1", 3, 4), Node("attn_out.1", 3, 4)),  # upwards only
        (Node("resid_post.0", 3, 4), Node("resid_post.0", 4, 4)),  # side by side
        (late, Node("attn_out.1", 3, 2)),  # back in time
        (late, token),
        (late, late),
        (LOGIT, late),
        (late, LOGIT),
    ]
    analysis, ran = case[0], []
    handles = [
        block.register_forward_pre_hook(lambda *_: ran.append(1)) for block in analysis.model.blocks
    ]
    try:
        assert not exact_edges(*case, pairs).any()
        assert not exact_edges(*case, []).numel()
        assert not ran
        assert exact_edges(*case, mixed(case)[::20]).any()
        assert ran
    finally:
        for handle in handles:
            handle.remove()


def test_every_edge_is_reported_once(case):
    done = []
    edges = [*mixed(case), (LOGIT, LOGIT)]
    exact_edges(*case, edges, report=done.append)
    assert sum(done) == len(edges)


def test_a_node_without_a_dictionary_is_an_error(no_streams):
    pair = (Node("resid_post.0", 1, 1), LOGIT)
    with pytest.raises(ValueError, match=r"resid_post.0/1@1 is at resid_post.0, which has no"):
        exact_edges(*no_streams, [pair])


def test_a_dictionary_on_another_ones_site_reads_what_leaves_it():
    """A transcoder that reads `mlp_in.1`, where an SAE's nodes move: their edge is the move times
    the encoder row, as long as no feature switches."""
    suite = toy_suite("mlp_in.1", "mlp_in.1-mlp_out.1")
    case = moved_by(prepare(suite, n=1), 1e-3)
    _, state, gradients = case
    lower, upper = Site("mlp_in", 1), Site("mlp_out", 1)
    i = int(dense(state, upper).f[0, 4].argmax())
    edge = (Node("mlp_in.1", "error", 4), Node("mlp_out.1", i, 4))
    move = state.errors[lower].change[0, 4] @ suite[upper].W_enc[i]
    slope = gradients[upper][0, 4] @ suite[upper].W_dec[i]
    expected = (move * slope).unsqueeze(0)
    torch.testing.assert_close(exact_edges(*case, [edge])[0], expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(estimated(case, [edge]), expected, atol=1e-10, rtol=0)


def test_a_dictionary_may_read_what_no_one_may_write():
    """`resid_mid` is read only: edges into a transcoder on it are as exact as any."""
    case = moved_by(prepare(toy_suite("resid_post.0", "resid_mid.1-mlp_out.1"), n=1), 1e-4)
    edges = between(case, "resid_post.0", "mlp_out.1", at=(1,), to=(1, 5))
    exact = exact_edges(*case, edges).sum(1)
    assert exact.abs().max() > 1e-5
    torch.testing.assert_close(estimated(case, edges), exact, atol=1e-3 * exact.abs().max(), rtol=0)
