"""Setting nodes of a running model, against the same done with dense tensors."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.features import Features, nonzero
from saes.intervention import Baseline, Spared, setting
from saes.nodes import NodeSet
from saes.suite import Suite
from tests.saes.formulas import KINDS, encode, suite_of
from tests.toys import full_suite, random_dictionary, shared_toy, toy_prompts

ROWS, LENGTH, D = 4, 6, 24
PLACES = ("attn_out.0", "mlp_in.0-mlp_out.0", "resid_post.0", "mlp_out.1", "attn_out.2")


@pytest.fixture(scope="module")
def model():
    return shared_toy()


@pytest.fixture(scope="module")
def batch():
    return toy_prompts(n=ROWS, length=LENGTH).clean


@dataclass(frozen=True)
class Values:
    """What nodes are set to, as `[rows, pos, features]` and `[rows, pos, d_model]`."""

    features: dict[str, Tensor]
    errors: dict[Site, Tensor]

    def baseline(self):
        """The same sparsely, without a token that is spared."""
        sparse = {}
        for name, f in self.features.items():
            found = nonzero(f.flatten(0, 1))
            index, value = (x.view(*f.shape[:2], -1) for x in (found.index, found.value))
            sparse[name] = Features(index, value, f.shape[-1])
        return Baseline(sparse, self.errors, {})

    def on(self, at):
        """Other rows or positions."""
        return Values(
            {name: f[at] for name, f in self.features.items()},
            {site: e[at] for site, e in self.errors.items()},
        )


def drawn_values(suite, *shape, seed=0):
    """About three features of a token on, of either sign."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    features = {}
    for name, dictionary in suite.items():
        on = torch.rand(*shape, dictionary.n_features, generator=generator) < 0.15
        features[name] = draw(*shape, dictionary.n_features) * on
    return Values(features, {site: draw(*shape, D) for site in suite.writes})


def drawn_nodes(suite, seed=0, share=0.2, length=LENGTH):
    """Features and errors at positions, and some at every one."""
    generator = torch.Generator().manual_seed(seed)
    positions = [None, *range(length)]
    nodes = [
        Node(name, i, p)
        for name, d in suite.items()
        for i in range(d.n_features)
        for p in positions
    ] + [Node(str(site), "error", p) for site in suite.writes for p in positions]
    chosen = torch.rand(len(nodes), generator=generator) < share
    return [node for node, is_chosen in zip(nodes, chosen.tolist(), strict=True) if is_chosen]


def mask_of(suite, nodes, length):
    """Where nodes are, as `[pos, features]` by dictionary and `[pos]` by site."""
    features = {n: torch.zeros(length, d.n_features, dtype=torch.bool) for n, d in suite.items()}
    errors = {site: torch.zeros(length, dtype=torch.bool) for site in suite.writes}
    for node in nodes:
        at = slice(None) if node.position is None else node.position
        if node.feature == "error":
            errors[Site.parse(node.site)][at] = True
        else:
            features[node.site][at, node.feature] = True
    return features, errors


@contextmanager
def plainly(model, suite, masks, values, *, plain=None, spared=None):
    """Every site written anew from what it is made of: x = sum of f' @ W_dec + b_dec + error'.

    `masks` and `values` are of the rows and columns of the pass.
    """
    features, errors = masks
    arrived = {}

    def write(site):
        def edit(x):
            arrived[site] = x
            left, built = x, torch.zeros_like(x)
            for name in suite.writing(site):
                d = suite[name]
                f = (plain or {}).get(name)
                if f is None:
                    f = encode(
                        d, torch.cat([(arrived if s in arrived else read)[s] for s in d.reads], -1)
                    )
                to = torch.where(features[name], values.features[name], f)
                place = d.writes.index(site)
                W_dec, b_dec = (w.chunk(len(d.writes), -1)[place] for w in (d.W_dec, d.b_dec))
                left, built = left - f @ W_dec - b_dec, built + to @ W_dec + b_dec
            error = torch.where(errors[site].unsqueeze(-1), values.errors[site], left)
            found = built + error
            return found if spared is None else torch.where(spared[site].unsqueeze(-1), x, found)

        return edit

    with (
        capture(model, {*suite.reads} - {*suite.writes}) as read,
        intervene(model, {site: write(site) for site in suite.writes}),
    ):
        yield


def outcome(model, batch, edits, sites):
    """The tensors that leave some sites, and the last logits."""
    with torch.no_grad(), edits, capture(model, sites) as seen:
        logits = last_logits(model, batch)
    return torch.cat([*(seen[site].flatten(1) for site in sites), logits], 1)


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("share", [0.02, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_nodes_at_some_positions_are_set_and_the_others_follow(model, batch, kind, share):
    suite = suite_of(kind, *PLACES)
    values = drawn_values(suite, ROWS, LENGTH)
    nodes = drawn_nodes(suite, share=share)
    features, errors = mask_of(suite, nodes, LENGTH)
    some = NodeSet.of(nodes)
    for chosen, masks in (
        (some, (features, errors)),
        (some.complement(), tuple({k: ~m for k, m in part.items()} for part in (features, errors))),
    ):
        expected = outcome(model, batch, plainly(model, suite, masks, values), suite.writes)
        edits = setting(model, suite, [chosen], values.baseline())
        same(outcome(model, batch, edits, suite.writes), expected)


def test_one_feature_moves_its_sites_by_what_it_writes(model, batch):
    """Whatever else is there, and nothing before it."""
    suite = suite_of("topk", *PLACES)
    values, node = drawn_values(suite, ROWS, LENGTH), Node("resid_post.0", 3, 2)
    site, dictionary = Site("resid_post", 0), suite["resid_post.0"]
    with capture(model, {site}) as plain:
        last_logits(model, batch)
    with (
        setting(model, suite, [NodeSet.of([node])], values.baseline()),
        capture(model, {site}) as x,
    ):
        last_logits(model, batch)
    f = encode(dictionary, plain[site])[:, 2, 3]
    expected = plain[site].clone()
    expected[:, 2] += (values.features[node.site][:, 2, 3] - f)[:, None] * dictionary.W_dec[3]
    same(x[site], expected)


@pytest.mark.parametrize("of_rows", [True, False])
@pytest.mark.parametrize("of_positions", [True, False])
def test_sets_side_by_side_are_each_as_alone(model, batch, of_rows, of_positions):
    """And a baseline of one row, or one position, is as if it were written out for all."""
    suite = suite_of("topk", *PLACES)
    shape = ROWS if of_rows else 1, LENGTH if of_positions else 1
    values = drawn_values(suite, *shape)
    sets = [NodeSet.of(drawn_nodes(suite, seed)) for seed in range(3)]
    sets += [sets[0].complement(), NodeSet.of([])]
    index = torch.arange(ROWS).repeat(len(sets))
    edits = setting(model, suite, sets, values.baseline().rows(index))
    together = outcome(model, batch.rows(index), edits, suite.writes)
    for some, found in zip(sets, together.split(ROWS), strict=True):
        whole = Values(
            {n: f.expand(ROWS, LENGTH, -1) for n, f in values.features.items()},
            {s: e.expand(ROWS, LENGTH, -1) for s, e in values.errors.items()},
        )
        edits = setting(model, suite, [some], whole.baseline())
        same(found, outcome(model, batch, edits, suite.writes))


@pytest.mark.parametrize("kind", ["topk", "coordinates"])
def test_a_baseline_without_any_node_is_zero(model, batch, kind):
    suite = suite_of(kind, *PLACES)
    nodes = drawn_nodes(suite)
    zeros = Values(
        {name: torch.zeros(ROWS, LENGTH, d.n_features).double() for name, d in suite.items()},
        {site: torch.zeros(ROWS, LENGTH, D).double() for site in suite.writes},
    )
    edits = plainly(model, suite, mask_of(suite, nodes, LENGTH), zeros)
    expected = outcome(model, batch, edits, suite.writes)
    edits = setting(model, suite, [NodeSet.of(nodes)], Baseline({}, {}, {}))
    same(outcome(model, batch, edits, suite.writes), expected)


@pytest.mark.parametrize("table", [1, 4])
@pytest.mark.parametrize("kind", ["topk", "relu", "coordinates"])
def test_tokens_may_go_by_a_table_of_positions(model, batch, kind, table):
    """Each row by its own entries, in any order; a table of one entry is for every token."""
    suite = suite_of(kind, *PLACES)
    values, nodes = drawn_values(suite, 1, table), drawn_nodes(suite, length=table)
    generator = torch.Generator().manual_seed(1)
    entry = torch.randint(table, (ROWS, LENGTH), generator=generator)
    masks = tuple(
        {key: mask[entry] for key, mask in part.items()} for part in mask_of(suite, nodes, table)
    )
    written_out = values.on((0, entry))
    expected = outcome(model, batch, plainly(model, suite, masks, written_out), suite.writes)
    edits = setting(model, suite, [NodeSet.of(nodes)], values.baseline(), entry=lambda: entry)
    same(outcome(model, batch, edits, suite.writes), expected)


def test_a_baseline_of_single_rows_goes_with_no_table(model):
    suite = suite_of("topk", *PLACES)
    values = drawn_values(suite, ROWS, LENGTH).baseline()
    edits = setting(model, suite, [NodeSet.of([])], values, entry=lambda: torch.zeros(1, 1).long())
    with pytest.raises(ValueError, match="a row for each prompt"), edits:
        pass


def test_spared_tokens_leave_as_they_arrive(model, batch):
    """Where they are known, and where a norm tells them; at some positions none is spared."""
    suite = suite_of("topk", *PLACES)
    values, nodes = drawn_values(suite, ROWS, LENGTH), drawn_nodes(suite)
    generator = torch.Generator().manual_seed(2)
    known = torch.rand(ROWS, LENGTH, generator=generator) < 0.4
    at = torch.arange(LENGTH) != 3
    keys = [*suite, *map(str, suite.writes)]
    base = replace(values.baseline(), spared=dict.fromkeys(keys, Spared(at, known)))
    spared = dict.fromkeys(suite.writes, known & at)
    edits = plainly(model, suite, mask_of(suite, nodes, LENGTH), values, spared=spared)
    expected = outcome(model, batch, edits, suite.writes)
    edits = setting(model, suite, [NodeSet.of(nodes)], base)
    same(outcome(model, batch, edits, suite.writes), expected)


def test_a_norm_tells_which_tokens_are_spared(model, batch):
    site, suite = Site("resid_post", 0), suite_of("topk", "resid_post.0")
    with capture(model, {site}) as plain:
        last_logits(model, batch)
    norms = plain[site].norm(dim=-1)
    limit = float(norms.median())
    limits = Spared(torch.ones(1, dtype=torch.bool), limits={site: limit})
    values = drawn_values(suite, ROWS, LENGTH)
    base = replace(values.baseline(), spared=dict.fromkeys(["resid_post.0"], limits))
    everything = NodeSet.of([]).complement()
    with setting(model, suite, [everything], base), capture(model, {site}) as found:
        last_logits(model, batch)
    dictionary = suite["resid_post.0"]
    f, error = values.features["resid_post.0"], values.errors[site]
    whole = f @ dictionary.W_dec + dictionary.b_dec + error
    loud = (norms > limit).unsqueeze(-1)
    assert 0 < loud.sum() < loud.numel()
    same(found[site], torch.where(loud, plain[site], whole))


def several_sites():
    """Two dictionaries that write several MLPs, beside one of a single site."""
    found = {}
    for layer in (0, 1):
        later = tuple(Site("mlp_out", at) for at in range(layer + 1, 3))
        spec = DictionarySpec(
            source=Site("resid_mid", layer),
            target=Site("mlp_out", layer),
            also_writes=later,
            called=f"clt.{layer}",
            k=5,
        )
        generator = torch.Generator().manual_seed(layer)
        one = random_dictionary(replace(spec, also_writes=()), seed=layer)
        wide = {
            name: torch.randn(*shape, generator=generator, dtype=torch.float64)
            for name, shape in (
                ("W_dec", (20, D * len(spec.writes))),
                ("b_dec", (D * len(spec.writes),)),
            )
        }
        weights = {"W_enc": one.W_enc, "b_enc": one.b_enc} | wide
        found[spec.called] = SparseDictionary(spec, weights)
    return Suite(found | dict(suite_of("topk", "attn_out.1")), {})


def test_a_dictionary_of_several_sites_is_set_at_all_of_them(model, batch):
    """Two write the same MLP: its error is what both leave over."""
    suite = several_sites()
    assert suite.writing(Site("mlp_out", 2)) == ["clt.0", "clt.1"]
    values = drawn_values(suite, ROWS, LENGTH)
    for share in (0.02, 0.3):
        nodes = drawn_nodes(suite, share=share)
        masks = mask_of(suite, nodes, LENGTH)
        expected = outcome(model, batch, plainly(model, suite, masks, values), suite.writes)
        edits = setting(model, suite, [NodeSet.of(nodes)], values.baseline())
        same(outcome(model, batch, edits, suite.writes), expected)


def crosscoder():
    spec = DictionarySpec(
        source=Site("resid_post", 0),
        target=Site("resid_post", 0),
        also_reads=(Site("resid_post", 1),),
        also_writes=(Site("resid_post", 1),),
        called="both",
        k=5,
    )
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (20, 2 * D), "b_enc": (20,), "W_dec": (20, 2 * D), "b_dec": (2 * D,)}
    weights = {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return Suite({"both": SparseDictionary(spec, weights)}, {})


def test_a_dictionary_that_writes_before_it_has_read_has_the_features_of_a_run_before(model, batch):
    suite = crosscoder()
    values, nodes = drawn_values(suite, ROWS, LENGTH), drawn_nodes(suite)
    with capture(model, suite.reads) as seen:
        last_logits(model, batch)
    plain = suite["both"].encode(suite["both"].read(seen))
    masks = mask_of(suite, nodes, LENGTH)
    edits = plainly(model, suite, masks, values, plain={"both": plain.dense()})
    expected = outcome(model, batch, edits, suite.writes)
    some = [NodeSet.of(nodes)]
    edits = setting(model, suite, some, values.baseline(), plain={"both": plain})
    same(outcome(model, batch, edits, suite.writes), expected)
    with (
        pytest.raises(
            ValueError, match=r"both writes resid_post\.0 before all that it reads has run"
        ),
        setting(model, suite, some, values.baseline()),
    ):
        pass


def test_sites_where_nothing_is_set_are_not_touched(model, batch):
    """Nor is anything left of an edit after its block."""
    suite = full_suite()
    values = drawn_values(suite, ROWS, LENGTH)
    before = last_logits(model, batch)
    with setting(model, suite, [NodeSet.of([])], values.baseline()):
        assert torch.equal(last_logits(model, batch), before)
    late = [Node("resid_post.2", 3), Node("resid_post.2", "error", 1)]
    early = [Site("attn_out", 0), Site("resid_post", 1)]
    with capture(model, early) as plain:
        last_logits(model, batch)
    with (
        setting(model, suite, [NodeSet.of(late)], values.baseline()),
        capture(model, early) as seen,
    ):
        assert not torch.equal(last_logits(model, batch), before)
    assert all(torch.equal(seen[site], plain[site]) for site in early)
    assert torch.equal(last_logits(model, batch), before)
