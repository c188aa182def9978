"""The figures of a dictionary's quality, against their formulas computed plainly."""

import string

import numpy as np
import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes import controls
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.metrics import evaluate, held_out_blocks
from tests.conftest import (
    SIZES,
    VOCABULARY,
    full_suite,
    random_dictionary,
    toy,
    toy_hf,
    toy_suite,
    toy_tokenizer,
)

D = SIZES["hidden_size"]
MLP, POST = Site("mlp_out", 1), Site("resid_post", 0)
BLOCKS = torch.randint(1, VOCABULARY, (6, 9), generator=torch.Generator().manual_seed(2))
PLANTED = 5
SUITES = ("mlp_out.1", "resid_post.0", "attn_out.2", "mlp_in.1-mlp_out.1")


@pytest.fixture(scope="module")
def model():
    return toy("qwen3")


@pytest.fixture(scope="module")
def with_outlier():
    """A toy whose token 5 is a thousand times too long, and blocks that hold it twice."""
    hf = toy_hf("qwen3")
    with torch.no_grad():
        hf.model.embed_tokens.weight[PLANTED] *= 1000
    blocks = BLOCKS.clone()
    blocks[blocks == PLANTED] = PLANTED + 1
    blocks[0, 3] = blocks[4, 0] = PLANTED
    return hook(hf, name="toy"), blocks


@torch.no_grad()
def plain_values(model, blocks, *sites):
    with capture(model, sites) as seen:
        model(blocks)
    return [seen[site].flatten(0, 1) for site in sites]


@torch.no_grad()
def cross_entropy(model, blocks, edits=None):
    """Of the next token over the whole text at once, by a whole forward pass of the model."""
    if edits:
        with intervene(model, edits):
            logits = model(blocks)
    else:
        logits = model(blocks)
    log_probs = logits[:, :-1].log_softmax(-1)
    picked = log_probs.gather(-1, blocks[:, 1:, None])
    return float(-picked.mean()), log_probs


def fvu(y, y_hat):
    y, y_hat = y.numpy(), y_hat.numpy()
    return np.square(y - y_hat).sum() / np.square(y - y.mean(axis=0)).sum()


@pytest.mark.parametrize("name", SUITES)
def test_the_coordinates_themselves_are_perfect(model, name):
    """One feature for each sign of each coordinate leaves no error, and splicing costs nothing."""
    (exact,) = controls.neurons(toy_suite(name)).values()
    (quality,) = evaluate(model, [exact], BLOCKS)
    assert quality.fvu == pytest.approx(0, abs=1e-20)
    assert quality.fvu_all == pytest.approx(0, abs=1e-20)
    assert quality.loss_recovered == pytest.approx(1, abs=1e-6)
    assert quality.loss_recovered_all == pytest.approx(1, abs=1e-6)
    assert quality.kl == pytest.approx(0, abs=1e-6)
    assert quality.ce_spliced == pytest.approx(quality.ce_clean, abs=1e-6)
    assert quality.l0 == D
    assert quality.tokens == BLOCKS.numel()


@pytest.mark.parametrize("site", [MLP, POST], ids=str)
def test_a_dictionary_that_writes_zero_recovers_nothing(model, site):
    spec = DictionarySpec(source=site, target=site, k=5)
    silent = random_dictionary(spec)
    silent.W_dec.zero_()
    silent.b_dec.zero_()
    (quality,) = evaluate(model, [silent], BLOCKS)
    assert quality.ce_spliced == quality.ce_zero
    assert quality.loss_recovered == 0
    (y,) = plain_values(model, BLOCKS, site)
    assert quality.fvu == pytest.approx(fvu(y, torch.zeros_like(y)), rel=1e-9)


@pytest.mark.parametrize("name", SUITES)
def test_every_figure_equals_its_formula(model, name):
    (dictionary,) = toy_suite(name).values()
    (quality,) = evaluate(model, [dictionary], BLOCKS)
    source, target = dictionary.source, dictionary.target
    x, y = (plain_values(model, BLOCKS, site)[0] for site in (source, target))
    f, y_hat = dictionary.encode(x), dictionary(x)
    assert quality.fvu == quality.fvu_all == pytest.approx(fvu(y, y_hat), rel=1e-6)
    fires = f > 0
    assert quality.l0 == pytest.approx(float(fires.sum(-1).double().mean()))
    assert quality.dead == pytest.approx(float((~fires.any(0)).double().mean()))
    assert quality.dense == int((fires.double().mean(0) > 0.1).sum())

    def splice(_):
        return y_hat.view(*BLOCKS.shape, -1)

    clean, p = cross_entropy(model, BLOCKS)
    spliced, q = cross_entropy(model, BLOCKS, {target: splice})
    zero, _ = cross_entropy(model, BLOCKS, {target: torch.zeros_like})
    assert quality.ce_clean == pytest.approx(clean, rel=1e-5)
    assert quality.ce_spliced == pytest.approx(spliced, rel=1e-5)
    assert quality.ce_zero == pytest.approx(zero, rel=1e-5)
    recovered = (zero - spliced) / (zero - clean)
    assert quality.loss_recovered == pytest.approx(recovered, rel=1e-3)
    kl = float((p.exp() * (p - q)).sum(-1).mean())
    assert quality.kl == pytest.approx(kl, rel=1e-5)
    assert quality.kl > 0


def test_dictionaries_judged_together_are_as_judged_alone(model):
    suite = list(full_suite().values())
    together = evaluate(model, suite, BLOCKS)
    for i in (0, 4, 8):
        assert evaluate(model, [suite[i]], BLOCKS) == [together[i]]


def test_norm_outliers_count_in_the_figures_called_all_and_in_no_other(with_outlier):
    model, blocks = with_outlier
    spec = DictionarySpec(source=POST, target=POST, k=5)
    dictionary = random_dictionary(spec)
    (quality,) = evaluate(model, [dictionary], blocks)
    (y,) = plain_values(model, blocks, POST)
    y_hat, inlier = dictionary(y), (blocks != PLANTED).flatten()
    assert quality.tokens == blocks.numel() - 2
    assert quality.fvu == pytest.approx(fvu(y[inlier], y_hat[inlier]), rel=1e-6)
    assert quality.fvu_all == pytest.approx(fvu(y, y_hat), rel=1e-6)
    assert quality.fvu != pytest.approx(quality.fvu_all, rel=0.1)
    fires = dictionary.encode(y[inlier]) > 0
    assert quality.l0 == pytest.approx(float(fires.sum(-1).double().mean()))


def test_norm_outliers_keep_their_own_activation_when_splicing(with_outlier):
    model, blocks = with_outlier
    dictionary = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    (quality,) = evaluate(model, [dictionary], blocks)
    (y,) = plain_values(model, blocks, POST)
    planted = (blocks == PLANTED)[..., None]
    all_spliced = dictionary(y).view(*blocks.shape, -1)
    clean, _ = cross_entropy(model, blocks)
    zero, _ = cross_entropy(model, blocks, {POST: torch.zeros_like})
    spliced, _ = cross_entropy(
        model, blocks, {POST: lambda x: torch.where(planted, x, all_spliced)}
    )
    spliced_all, _ = cross_entropy(model, blocks, {POST: lambda _: all_spliced})
    assert quality.ce_spliced == pytest.approx(spliced, rel=1e-5)
    expected = (zero - spliced) / (zero - clean), (zero - spliced_all) / (zero - clean)
    assert (quality.loss_recovered, quality.loss_recovered_all) == pytest.approx(expected, rel=1e-3)
    assert quality.loss_recovered != pytest.approx(quality.loss_recovered_all, rel=1e-3)


def test_a_skip_connection_counts_in_the_reconstruction(model):
    """A dictionary of nothing but an identity skip is as exact as the coordinates."""
    zero = torch.zeros(3, D, dtype=torch.float64)
    weights = {"W_enc": zero, "W_dec": zero, "b_enc": zero[:, 0], "b_dec": zero[0]}
    spec = DictionarySpec(source=MLP, target=MLP, k=1)
    skip = SparseDictionary(spec, weights | {"W_skip": torch.eye(D, dtype=torch.float64)})
    (quality,) = evaluate(model, [skip], BLOCKS)
    assert quality.fvu == pytest.approx(0, abs=1e-20)
    assert quality.loss_recovered == pytest.approx(1, abs=1e-6)
    assert (quality.l0, quality.dead, quality.dense) == (0, 1, 0)


def test_the_model_is_as_before_and_progress_is_told(model):
    before, reports = model(BLOCKS), []
    evaluate(
        model,
        [random_dictionary(DictionarySpec(source=MLP, target=MLP, k=3))],
        BLOCKS,
        report=lambda done, total: reports.append((done, total)),
    )
    assert torch.equal(model(BLOCKS), before)
    assert reports == [(4, 6), (6, 6)]


def test_held_out_blocks_are_the_first_tokens_of_the_text():
    model = hook(toy_hf("qwen2", torch.float32), tokenizer=toy_tokenizer(), name="toy")
    text = string.ascii_letters[2:]
    blocks = held_out_blocks(iter([text]), model, tokens=25, length=10)
    assert blocks.flatten().tolist() == toy_tokenizer()(text)["input_ids"][:20]
    with pytest.raises(ValueError, match="the text is shorter than one block of 10 tokens"):
        held_out_blocks(iter(["cc"]), model, tokens=25, length=10)


def test_untrained_dictionaries_have_the_shape_of_the_trained(model):
    suite = full_suite()
    control = controls.untrained(suite, seed=3)
    assert list(control) == list(suite)
    for site, dictionary in control.items():
        assert (dictionary.source, dictionary.target) == (site, site)
        assert dictionary.W_dec.shape == suite[site].W_dec.shape
        torch.testing.assert_close(
            dictionary.W_dec.norm(dim=-1), torch.ones(20, dtype=torch.float64)
        )
        at_the_mean = dictionary.encode(suite[site].b_dec)
        torch.testing.assert_close(at_the_mean, torch.zeros_like(at_the_mean), atol=1e-12, rtol=0)
    again, other = controls.untrained(suite, seed=3), controls.untrained(suite, seed=90)
    assert torch.equal(control[MLP].W_dec, again[MLP].W_dec)
    assert not torch.equal(control[MLP].W_dec, other[MLP].W_dec)
