"""Every shortcut of training equals the plain way of doing it."""

import weakref
from dataclasses import replace

import pytest
import torch

from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch
from saes.nonlinearities import topk
from saes.sae import sae
from saes.training.loop import BATCHES_FOR_MEAN, Progress, TrainConfig, fit
from transcoders.transcoder import transcoder

OUT, IN = Site("mlp_out", 0), Site("mlp_in", 0)
SAE, TRANSCODER = sae(OUT, k=4), transcoder(0, k=4)
PLANTED, D = 24, 16
CONFIG = TrainConfig(width=20, tokens=32 * 100, dead_after=40, learning_rate=3e-3)


def unit_rows(n, d, seed):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def planted(n, size=32, *, seed=0):
    """Sparse non-negative codes, and two images of them: what the MLP reads, and what it writes.

    Raw activations as a model has them: off centre, and of no particular scale.
    """
    generator = torch.Generator().manual_seed(seed)
    read, written = (unit_rows(PLANTED, D, s).to(torch.get_default_dtype()) for s in (1, 2))
    for _ in range(n):
        on = torch.rand(size, PLANTED, generator=generator) < 3 / PLANTED
        codes = on * (1 + torch.rand(size, PLANTED, generator=generator))
        values = {IN: 5 * codes @ read + 3, OUT: 0.2 * codes @ written - 1}
        yield ActivationBatch(
            values, {site: torch.zeros(size, dtype=torch.bool) for site in values}
        )


@pytest.fixture(params=[torch.float64, torch.float32], ids=str)
def _each_precision(request):
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


def tensors(trained):
    return trained.dictionary.state_dict()


def assert_same(one, other, **tolerance):
    assert tensors(one).keys() == tensors(other).keys()
    for name, value in tensors(one).items():
        torch.testing.assert_close(value, tensors(other)[name], msg=name, **tolerance)


EXACTLY = {"atol": 0, "rtol": 0}


@pytest.mark.usefixtures("_each_precision")
@pytest.mark.parametrize("spec", [SAE, TRANSCODER], ids=["sae", "transcoder"])
@pytest.mark.parametrize("dead_after", [40, 10**9], ids=["auxk", "no-auxk"])
def test_training_equals_the_dense_reference(spec, dead_after):
    """A hundred steps of autograd through the plain formula give the same losses and weights."""
    config = replace(CONFIG, width=96, dead_after=dead_after)
    reports: list[Progress] = []
    (trained,) = fit(planted(100), [spec], config=config, report=reports.append)
    losses, dead, expected = dense_training(list(planted(100)), spec, config)
    assert [r.fvu for r in reports] == pytest.approx(losses, rel=1e-6)
    assert [r.dead for r in reports] == pytest.approx(dead)
    assert (max(dead) > 0) == (dead_after == 40)
    for name, value in expected.items():
        torch.testing.assert_close(tensors(trained)[name], value, atol=1e-6, rtol=1e-6, msg=name)


def dense_training(batches, spec, config):
    """Training as the docstrings tell it, by autograd, in nothing but dense products."""
    source = torch.cat([b.values[spec.source] for b in batches[:BATCHES_FOR_MEAN]])
    target = torch.cat([b.values[spec.target] for b in batches[:BATCHES_FOR_MEAN]])
    (m_x, s_x), (m_y, s_y) = map(centre_and_scale, (source, target))
    W_dec = unit_rows_in_default_dtype(config.width, config.seed)
    W_enc = W_dec.clone()
    if spec.source != spec.target:
        _, W_enc = unit_rows_in_default_dtype(config.width, config.seed, draws=2)
    leaves = [W_enc, torch.zeros(config.width), W_dec, torch.zeros(D)]
    W_enc, b_enc, W_dec, b_dec = leaves = [leaf.requires_grad_() for leaf in leaves]
    adam = torch.optim.Adam(leaves, eps=1e-9)
    silent, unexplained, losses, shares = torch.zeros(config.width), [], [], []
    for step, batch in enumerate(batches):
        x, y = (batch.values[spec.source] - m_x) * s_x, (batch.values[spec.target] - m_y) * s_y
        pre, dead = x @ W_enc.T + b_enc, silent > config.dead_after
        f = topk(pre, spec.k)
        error = y - f @ W_dec - b_dec
        loss = error.square().mean()
        if dead.any():
            e = error.detach()
            revived = topk(pre[:, dead], min(D // 2, int(dead.sum()))) @ W_dec[dead]
            share = (e - revived).square().sum() / e.square().sum()
            loss = loss + config.aux_coefficient * share
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            unexplained.append(float(error.square().sum() / y.square().sum()))
            weights = [0.95 ** (step - n) for n in range(step + 1)]
            fvu = sum(w * u for w, u in zip(weights, unexplained, strict=True)) / sum(weights)
            silent = torch.where((f > 0).any(0), 0.0, silent + len(x))
            W_dec.grad -= (W_dec.grad * W_dec).sum(-1, keepdim=True) * W_dec
            torch.nn.utils.clip_grad_norm_(leaves, config.gradient_norm)
            adam.param_groups[0]["lr"] = config.learning_rate * min(
                1,
                (step + 1) / (config.warmup * len(batches)),
                (len(batches) - step) / (config.decay * len(batches)),
            )
            adam.step()
            W_dec /= W_dec.norm(dim=-1, keepdim=True)
        losses.append(fvu)
        shares.append(float((silent > config.dead_after).double().mean()))
    return losses, shares, folded(leaves, m_x, s_x, m_y, s_y)


def centre_and_scale(x):
    return x.mean(0), (D / (x - x.mean(0)).square().sum(-1).mean()).sqrt()


def unit_rows_in_default_dtype(width, seed, draws=1):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(width, D, generator=generator) for _ in range(draws)]
    rows = [r / r.norm(dim=-1, keepdim=True) for r in rows]
    return rows[0] if draws == 1 else rows


def folded(leaves, m_x, s_x, m_y, s_y):
    """The normalised dictionary on (x - m_x) s_x, undone by (y / s_y) + m_y, as raw weights."""
    W_enc, b_enc, W_dec, b_dec = (leaf.detach() for leaf in leaves)
    return {
        "W_enc": W_enc * s_x / s_y,
        "b_enc": (b_enc - s_x * W_enc @ m_x) / s_y,
        "W_dec": W_dec,
        "b_dec": b_dec / s_y + m_y,
    }


def test_the_same_seed_trains_the_same_dictionary_and_another_seed_another():
    once, again, other = (
        fit(planted(100), [SAE], config=replace(CONFIG, seed=seed))[0] for seed in (0, 0, 50)
    )
    assert_same(once, again, **EXACTLY)
    assert not torch.equal(tensors(once)["W_dec"], tensors(other)["W_dec"])


def test_dictionaries_trained_together_equal_each_trained_alone():
    """The n-th of several starts from the seed plus n, and is otherwise on its own."""
    specs = [SAE, TRANSCODER, sae(OUT, k=2)]
    together = fit(planted(100), specs, config=CONFIG)
    for n, (spec, trained) in enumerate(zip(specs, together, strict=True)):
        (alone,) = fit(planted(100), [spec], config=replace(CONFIG, seed=CONFIG.seed + n))
        assert_same(trained, alone, **EXACTLY)


def test_outliers_are_left_out_and_counted():
    """Rows flagged at either site, whatever is in them, change nothing but the count."""

    def spoilt(batches):
        for batch in batches:
            junk = {
                site: torch.cat([value, value[:2] * 1e6]) for site, value in batch.values.items()
            }
            n = len(batch.values[IN])
            flags = {IN: torch.arange(n + 2) == n, OUT: torch.arange(n + 2) == n + 1}
            yield ActivationBatch(junk, flags)

    clean = fit(planted(100), [TRANSCODER], config=CONFIG)[0]
    tokens = 34 * 100
    spoiled = fit(spoilt(planted(100)), [TRANSCODER], config=replace(CONFIG, tokens=tokens))[0]
    assert_same(clean, spoiled, **EXACTLY)
    assert clean.record["norm_outliers_left_out"] == 0
    assert spoiled.record["norm_outliers_left_out"] == 2 * 100


def test_the_record_tells_how_it_was_trained():
    reports: list[Progress] = []
    config = replace(CONFIG, tokens=32 * 20 + 5)
    (trained,) = fit(planted(100), [SAE], config=config, report=reports.append)
    assert [r.step for r in reports] == list(range(1, 21))
    assert [r.tokens for r in reports] == [32 * n for n in range(1, 21)]
    assert {r.steps for r in reports} == {20}
    assert trained.record["tokens"] == 32 * 20
    assert trained.record["learning_rate"] == CONFIG.learning_rate
    assert reports[-1].fvu < reports[0].fvu


@pytest.mark.parametrize("n", [3, BATCHES_FOR_MEAN, 50])
def test_a_stream_that_ends_early_says_what_it_gave(n):
    message = f"the text gave {32 * n} activations, but 3200 were asked for: give more text"
    with pytest.raises(ValueError, match=message):
        fit(planted(n), [SAE], config=CONFIG)


def test_a_stream_with_nothing_in_it():
    with pytest.raises(ValueError, match="no activations to train on"):
        fit(iter(()), [SAE], config=CONFIG)


def test_memory_that_runs_out_names_the_step_and_what_to_do():
    def greedy():
        for step, batch in enumerate(planted(100)):
            if step == 12:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            yield batch

    with pytest.raises(RuntimeError, match="out of memory at step 12: train fewer layers at once"):
        fit(greedy(), [SAE], config=CONFIG)


def test_batches_are_let_go_once_they_have_been_trained_on():
    """The first, which set the normalisation, lie there together: as large as a buffer."""
    made, there = [], []

    def given():
        for batch in planted(BATCHES_FOR_MEAN + 4):
            fresh = replace(batch)
            made.append(weakref.ref(fresh))
            yield fresh
            del fresh

    def count(_: Progress):
        there.append(sum(known() is not None for known in made))

    config = replace(CONFIG, tokens=32 * (BATCHES_FOR_MEAN + 3))
    fit(given(), [SAE], config=config, report=count)
    assert there[0] == BATCHES_FOR_MEAN
    assert there[BATCHES_FOR_MEAN - 1 :] == [1] * (len(there) - BATCHES_FOR_MEAN + 1)
