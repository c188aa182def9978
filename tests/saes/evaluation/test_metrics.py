"""The figures of a dictionary's quality, against their formulas computed plainly."""

import json
import string
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.evaluation import baselines as controls
from saes.evaluation.metrics import evaluate, evaluate_jointly, held_out_blocks
from tests.toys import (
    SIZES,
    VOCABULARY,
    full_suite,
    random_dictionary,
    shared_toy,
    speaking_toy,
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
    return shared_toy("qwen3")


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
    f, y_hat = dictionary.encode(x).dense(), dictionary(x)
    assert quality.fvu == quality.fvu_all == pytest.approx(fvu(y, y_hat), rel=1e-6)
    fires = f > 0
    assert quality.l0 == pytest.approx(float(fires.sum(-1).double().mean()))
    assert quality.dead == pytest.approx(float((~fires.any(0)).double().mean()))
    assert quality.dense == int((fires.double().mean(0) > 0.1).sum())
    assert quality.explained_variance == 1 - quality.fvu
    cosine = (y * y_hat).sum(-1) / y.norm(dim=-1) / y_hat.norm(dim=-1)
    assert quality.cosine == pytest.approx(float(cosine.mean()), rel=1e-9)
    assert (quality.outliers, quality.kl_all) == (0, quality.kl)

    def splice(_):
        return y_hat.view(*BLOCKS.shape, -1)

    clean, p = cross_entropy(model, BLOCKS)
    spliced, q = cross_entropy(model, BLOCKS, {target: splice})
    zero, at_zero = cross_entropy(model, BLOCKS, {target: torch.zeros_like})
    assert quality.ce_clean == pytest.approx(clean, rel=1e-5)
    assert quality.ce_spliced == pytest.approx(spliced, rel=1e-5)
    assert quality.ce_zero == pytest.approx(zero, rel=1e-5)
    mean, at_mean = cross_entropy(model, BLOCKS, {target: lambda v: y.mean(0).expand_as(v)})
    assert quality.ce_mean == pytest.approx(mean, rel=1e-5)
    costs = {"": (spliced, q), "_zero": (zero, at_zero), "_mean": (mean, at_mean)}
    for end, (ce, log_probs) in costs.items():
        assert getattr(quality, f"ce_added{end}") == pytest.approx(ce - clean, rel=1e-3)
        kl = float((p.exp() * (p - log_probs)).sum(-1).mean())
        assert getattr(quality, f"kl{end}") == pytest.approx(kl, rel=1e-5)
    recovered = (zero - spliced) / (zero - clean)
    assert quality.loss_recovered == pytest.approx(recovered, rel=1e-3)
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
    assert quality.outliers == 2
    assert quality.fvu == pytest.approx(fvu(y[inlier], y_hat[inlier]), rel=1e-6)
    assert quality.fvu_all == pytest.approx(fvu(y, y_hat), rel=1e-6)
    assert quality.fvu != pytest.approx(quality.fvu_all, rel=0.1)
    fires = dictionary.encode(y[inlier]).dense() > 0
    assert quality.l0 == pytest.approx(float(fires.sum(-1).double().mean()))


def test_norm_outliers_keep_their_own_activation_in_every_replacement(with_outlier):
    model, blocks = with_outlier
    dictionary = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    (quality,) = evaluate(model, [dictionary], blocks)
    (y,) = plain_values(model, blocks, POST)
    planted = (blocks == PLANTED)[..., None]
    mean = y[~planted.flatten()].mean(0)
    replacements = {
        "spliced": dictionary(y).view(*blocks.shape, -1),
        "zero": torch.zeros_like(mean),
        "mean": mean,
    }
    ce = {"clean": cross_entropy(model, blocks)[0]}
    for name, value in replacements.items():
        kept = {POST: lambda x, value=value: torch.where(planted, x, value)}
        everywhere = {POST: lambda x, value=value: value.expand_as(x)}
        ce[name], _ = cross_entropy(model, blocks, kept)
        ce[f"{name}_all"], _ = cross_entropy(model, blocks, everywhere)
    for name in ("clean", "spliced", "spliced_all", "zero", "zero_all", "mean"):
        assert getattr(quality, f"ce_{name}") == pytest.approx(ce[name], rel=1e-5), name
    for suffix, reference in (("", "zero"), ("_mean", "mean")):
        recovered = (ce[reference] - ce["spliced"]) / (ce[reference] - ce["clean"])
        assert getattr(quality, f"loss_recovered{suffix}") == pytest.approx(recovered, rel=1e-3)
    recovered = (ce["zero_all"] - ce["spliced_all"]) / (ce["zero_all"] - ce["clean"])
    assert quality.loss_recovered_all == pytest.approx(recovered, rel=1e-3)
    assert quality.ce_zero != pytest.approx(quality.ce_zero_all, rel=1e-3)
    assert quality.kl != pytest.approx(quality.kl_all, rel=1e-3)


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
    assert reports == [(0, 6), (4, 6), (6, 6)]


def test_held_out_blocks_are_the_first_tokens_of_the_text():
    model = speaking_toy("qwen2", torch.float32)
    text = string.ascii_letters[2:]
    blocks = held_out_blocks(iter([text]), model, tokens=25, length=10)
    assert blocks.flatten().tolist() == toy_tokenizer()(text)["input_ids"][:20]
    with pytest.raises(ValueError, match="the text is shorter than one block of 10 tokens"):
        held_out_blocks(iter(["cc"]), model, tokens=25, length=10)


def test_negative_features_of_a_signed_dictionary_count_as_active(model):
    spec = DictionarySpec(source=MLP, target=MLP, k=5, signed=True)
    dictionary = random_dictionary(spec, width=6)
    (y,) = plain_values(model, BLOCKS, MLP)
    assert (dictionary.encode(y).dense() < 0).any()
    (quality,) = evaluate(model, [dictionary], BLOCKS)
    assert quality.l0 == 5


def test_the_histogram_of_densities_counts_every_feature_that_fired(model):
    (dictionary,) = toy_suite("mlp_out.1").values()
    dictionary.b_enc[:2] = -1e6
    (quality,) = evaluate(model, [dictionary], BLOCKS)
    (y,) = plain_values(model, BLOCKS, MLP)
    density = (dictionary.encode(y).dense() > 0).double().mean(0).numpy()
    ends = np.array([0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    expected = [int(((density > a) & (density <= b)).sum()) for a, b in pairwise(ends)]
    assert list(quality.density.values()) == expected
    assert list(quality.density) == ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"]
    assert quality.dense == quality.density["1"]
    assert sum(expected) == round(20 * (1 - quality.dead)) == 18


def test_a_quality_is_strict_json(model):
    record = [asdict(q) for q in evaluate(model, list(full_suite().values()), BLOCKS[:1])]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_loss_recovered_is_null_where_ablating_costs_nothing(model):
    zero = controls.neurons(toy_suite("mlp_out.1"))[MLP]
    weight = model.blocks[1].mlp.original_component.down_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(0).add_(0)
    try:
        with pytest.raises(ValueError, match="mlp_out.1 is the same on every token"):
            evaluate(model, [zero], BLOCKS)
        joint = evaluate_jointly(model, [zero], BLOCKS)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert joint.loss_recovered is None
    assert joint.intervals["loss_recovered"] is None
    assert joint.ce_zero == joint.ce_spliced


def test_intervals_are_those_of_a_plain_bootstrap_over_blocks(model):
    """Whole blocks are drawn; draws of its own, so equal up to their scatter."""
    blocks = torch.randint(1, VOCABULARY, (24, 9), generator=torch.Generator().manual_seed(3))
    (dictionary,) = toy_suite("mlp_out.1").values()
    (quality,) = evaluate(model, [dictionary], blocks)
    (y,) = plain_values(model, blocks, MLP)
    error = (y - dictionary(y)).square().sum(-1).view(24, 9).sum(-1).numpy()
    spread = (y - y.mean(0)).square().sum(-1).view(24, 9).sum(-1).numpy()
    draws = np.random.default_rng(0).integers(24, size=(4000, 24))
    expected = np.quantile(error[draws].sum(1) / spread[draws].sum(1), [0.025, 0.975])
    low, high = quality.intervals["fvu"]
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.1 * (high - low))
    for name, (low, high) in quality.intervals.items():
        assert low <= getattr(quality, name) <= high, name


def test_one_block_has_no_interval(model):
    (quality,) = evaluate(model, list(toy_suite("mlp_out.1").values()), BLOCKS[:1])
    assert set(quality.intervals.values()) == {None}


@pytest.mark.parametrize("names", [("mlp_out.1",), ("mlp_in.1-mlp_out.1",)])
def test_one_dictionary_together_is_the_one_alone(model, names):
    suite = list(toy_suite(*names).values())
    joint, (alone,) = evaluate_jointly(model, suite, BLOCKS), evaluate(model, suite, BLOCKS)
    for name in ("ce_spliced", "ce_zero", "ce_mean", "kl", "kl_all", "loss_recovered"):
        assert getattr(joint, name) == getattr(alone, name)
    assert joint.intervals["kl"] == alone.intervals["kl"]
    assert joint.dictionaries == 1


def test_dictionaries_spliced_together_each_read_what_those_before_left(model):
    """Against one pass of the model with an edit at every target, the transcoder's source live."""
    suite = full_suite()
    joint = evaluate_jointly(model, list(suite.values()), BLOCKS)
    read = {}

    def keep(value):
        read["source"] = value
        return value

    transcoder, source = suite[MLP], Site("mlp_in", 1)
    sites = suite.writes
    edits = {**{site: suite[site] for site in sites}, source: keep}
    edits[MLP] = lambda _: transcoder(read["source"])
    clean, p = cross_entropy(model, BLOCKS)
    spliced, q = cross_entropy(model, BLOCKS, edits)
    zero, _ = cross_entropy(model, BLOCKS, dict.fromkeys(sites, torch.zeros_like))
    means = dict(zip(sites, (y.mean(0) for y in plain_values(model, BLOCKS, *sites)), strict=True))
    fill = {site: lambda y, site=site: means[site].expand_as(y) for site in sites}
    mean, _ = cross_entropy(model, BLOCKS, fill)
    found = (joint.ce_clean, joint.ce_spliced, joint.ce_zero, joint.ce_mean)
    assert found == pytest.approx((clean, spliced, zero, mean), rel=1e-5)
    assert joint.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-5)
    assert joint.loss_recovered == pytest.approx((zero - spliced) / (zero - clean), rel=1e-3)
    assert joint.dictionaries == 9
    alone = evaluate(model, list(suite.values()), BLOCKS)
    assert all(abs(joint.ce_spliced - q.ce_spliced) > 1e-3 for q in alone)


def test_a_source_that_another_dictionary_writes_is_read_after_it(model):
    """As in the stream: what `resid_post.0` writes is what a map from it to `mlp_out.1` reads."""
    below = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    above = random_dictionary(DictionarySpec(source=POST, target=MLP, k=5), seed=1)
    joint = evaluate_jointly(model, [above, below], BLOCKS)
    (y,) = plain_values(model, BLOCKS, POST)
    edits = {POST: below, MLP: lambda _: above(below(y)).view(*BLOCKS.shape, -1)}
    assert joint.ce_spliced == pytest.approx(cross_entropy(model, BLOCKS, edits)[0], rel=1e-5)


def test_perfect_dictionaries_together_cost_nothing(model):
    joint = evaluate_jointly(model, list(controls.neurons(full_suite()).values()), BLOCKS)
    assert joint.ce_spliced == pytest.approx(joint.ce_clean, abs=1e-6)
    assert joint.loss_recovered == pytest.approx(1, abs=1e-6)
    assert joint.loss_recovered_mean == pytest.approx(1, abs=1e-6)


def test_splicing_together_needs_one_dictionary_for_each_target(model):
    both = [*toy_suite("mlp_out.1").values(), *toy_suite("mlp_in.1-mlp_out.1").values()]
    with pytest.raises(ValueError, match="several dictionaries write mlp_out.1: expected one"):
        evaluate_jointly(model, both, BLOCKS)
    with pytest.raises(ValueError, match="no dictionaries to splice together"):
        evaluate_jointly(model, [], BLOCKS)


def test_progress_of_a_joint_splice_is_told(model):
    reports = []
    evaluate_jointly(
        model,
        list(toy_suite("mlp_out.1").values()),
        BLOCKS,
        report=lambda done, total: reports.append((done, total)),
    )
    assert reports == [(0, 6), (4, 6), (6, 6)]
