"""Runs with tensors replaced, started in the middle: against whole runs of the model."""

import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.evaluation.baselines import neurons
from saes.evaluation.splice import (
    clean_run,
    is_outlier_pair,
    pairs_of,
    reference_sums,
    site_means,
    sites_of,
    spliced_sums,
    unpadded,
)
from tests.toys import VOCABULARY, full_suite, random_dictionary, shared_toy, toy_hf, toy_suite

POST, MLP, IN = Site("resid_post", 0), Site("mlp_out", 1), Site("mlp_in", 1)
BLOCKS = torch.randint(1, VOCABULARY, (5, 9), generator=torch.Generator().manual_seed(4))
PLANTED = 5
NAMES = ("mlp_out.1", "resid_post.0", "attn_out.2", "mlp_in.1-mlp_out.1")
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


@pytest.fixture(scope="module")
def model():
    return shared_toy()


@pytest.fixture(scope="module")
def with_outlier():
    """A toy whose token 5 is a thousand times too long, and blocks of which two hold it."""
    hf = toy_hf()
    with torch.no_grad():
        hf.model.embed_tokens.weight[PLANTED] *= 1000
    blocks = BLOCKS.clone()
    blocks[blocks == PLANTED] = PLANTED + 1
    blocks[0, 3] = blocks[4, 0] = PLANTED
    return hook(hf, name="toy"), blocks


@torch.no_grad()
def whole_run(model, blocks, edits=None):
    """Log-probabilities by one whole pass, and cross-entropy summed over each block."""
    with intervene(model, edits or {}):
        log_probs = model(blocks)[:, :-1].log_softmax(-1)
    return log_probs, -log_probs.gather(-1, blocks[:, 1:, None]).sum((1, 2))


@torch.no_grad()
def values_at(model, blocks, site):
    with capture(model, [site]) as seen:
        model(blocks)
    return seen[site]


def spliced(model, blocks, dictionaries):
    return spliced_sums(model, clean_run(model, pairs_of(dictionaries), blocks), dictionaries)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_sums_of_each_block_are_those_of_whole_runs(model, name):
    (dictionary,) = toy_suite(name).values()
    source, target = dictionary.source, dictionary.target
    x, y = (values_at(model, BLOCKS, site) for site in (source, target))
    mean = y.flatten(0, 1).mean(0)
    clean = clean_run(model, pairs_of([dictionary]), BLOCKS)
    means = site_means(model, [dictionary], BLOCKS.split(2))
    torch.testing.assert_close(means[source, target][0], mean, **CLOSE)
    found = reference_sums(model, clean, means) | spliced_sums(model, clean, [dictionary])
    p, ce = whole_run(model, BLOCKS)
    torch.testing.assert_close(found["clean"], ce, **CLOSE)
    replacements = {
        "zero": torch.zeros_like(y),
        "mean": mean.expand_as(y),
        "spliced": dictionary(x),
    }
    for what, value in replacements.items():
        q, ce = whole_run(model, BLOCKS, {target: lambda _, value=value: value})
        torch.testing.assert_close(found[what], ce, msg=what, **CLOSE)
    kl = (p.exp() * (p - q)).sum((1, 2))
    torch.testing.assert_close(found["kl"], kl, **CLOSE)
    assert found["predicted"].tolist() == [8.0] * 5


@pytest.mark.parametrize("name", NAMES)
def test_what_reconstructs_all_costs_nothing_and_what_writes_zero_is_the_zero_ablation(model, name):
    suite = toy_suite(name)
    (dictionary,) = suite.values()
    exact = list(neurons(suite).values())
    found = spliced(model, BLOCKS, exact)
    clean = clean_run(model, pairs_of(exact), BLOCKS)
    reference = reference_sums(model, clean, site_means(model, exact, [BLOCKS]))
    torch.testing.assert_close(found["spliced"], reference["clean"], **CLOSE)
    assert found["kl"].abs().max() < 1e-6
    dictionary.W_dec.zero_()
    dictionary.b_dec.zero_()
    nothing = spliced(model, BLOCKS, [dictionary])
    clean = clean_run(model, pairs_of([dictionary]), BLOCKS)
    reference = reference_sums(model, clean, site_means(model, [dictionary], [BLOCKS]))
    torch.testing.assert_close(nothing["spliced"], reference["zero"], atol=1e-9, rtol=0)


def test_blocks_do_not_depend_on_those_beside_them(model):
    dictionaries = list(full_suite().values())
    together = spliced(model, BLOCKS, dictionaries)
    for row in range(len(BLOCKS)):
        alone = spliced(model, BLOCKS[row : row + 1], dictionaries)
        for name, value in alone.items():
            torch.testing.assert_close(value, together[name][row : row + 1], msg=name, **CLOSE)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_means_do_not_depend_on_how_the_text_is_cut(with_outlier, size):
    """The first without norm outliers, the second of all tokens."""
    model, blocks = with_outlier
    dictionary = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    found = site_means(model, [dictionary], blocks.split(size))[POST, POST]
    y, outlier = values_at(model, blocks, POST).flatten(0, 1), (blocks == PLANTED).flatten()
    torch.testing.assert_close(found[0], y[~outlier].mean(0), **CLOSE)
    torch.testing.assert_close(found[1], y.mean(0), **CLOSE)
    assert site_means(model, [], blocks.split(size)) == {}


def test_only_what_has_an_outlier_is_run_twice(with_outlier):
    """Blocks without one have the same sums with outliers kept as with all replaced."""
    model, blocks = with_outlier
    dictionary = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    clean = clean_run(model, pairs_of([dictionary]), blocks)
    assert clean.with_outliers == {(POST, POST)}
    assert torch.equal(clean.outliers[POST, POST], blocks == PLANTED)
    found = spliced_sums(model, clean, [dictionary])
    same = (found["spliced"] - found["spliced_all"]).abs() < 1e-9
    assert same.tolist() == [False, True, True, True, False]
    without = clean_run(model, pairs_of([dictionary]), blocks[1:4])
    assert not without.with_outliers
    found = spliced_sums(model, without, [dictionary])
    assert torch.equal(found["spliced"], found["spliced_all"])
    assert torch.equal(found["kl"], found["kl_all"])


def test_an_outlier_at_either_end_is_one():
    x, y = torch.ones(1, 6, 3), torch.ones(1, 6, 2)
    x[0, 1] *= 100
    y[0, 4] *= 100
    assert is_outlier_pair(x, y).nonzero()[:, 1].tolist() == [1, 4]
    assert not is_outlier_pair(x[:, 2:4], y[:, 2:4]).any()


def test_a_clean_run_keeps_what_the_model_has_there(model):
    pairs = {(IN, MLP), (POST, POST)}
    clean = clean_run(model, pairs, BLOCKS)
    assert sites_of(pairs) == {IN, MLP, POST} <= set(clean.values)
    for site in (IN, MLP, POST):
        torch.testing.assert_close(clean.values[site], values_at(model, BLOCKS, site), **CLOSE)
    torch.testing.assert_close(clean.log_probs, whole_run(model, BLOCKS)[0], **CLOSE)


def test_pairs_are_what_dictionaries_read_and_write():
    suite = toy_suite("mlp_in.1-mlp_out.1", "resid_post.0")
    assert pairs_of(list(suite.values())) == {(IN, MLP), (POST, POST)}
    assert unpadded(BLOCKS).mask.all()


def test_the_model_is_as_before(model):
    before = model(BLOCKS)
    spliced(model, BLOCKS, list(full_suite().values()))
    assert torch.equal(model(BLOCKS), before)
