"""The stream hands out the model's own activations, each as often as it was asked to."""

import random
import string
import weakref
from collections import Counter

import pytest
import torch

from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch, StreamConfig, activation_batches, buffers, shuffled
from hooked_qwen.tokens import token_blocks
from tests.hooked_qwen.plain import plain_forward
from tests.toys import toy_hf, toy_tokenizer

EMBED, MLP, POST = Site("embed"), Site("mlp_out", 0), Site("resid_post", 2)
SITES = [EMBED, MLP, POST]
CONFIG = StreamConfig(block_length=8, blocks_per_pass=3, batch_size=16, buffer_size=48)
LETTER_Q = 3 + string.ascii_letters.index("q")


def toy_with_tokenizer(hf=None):
    return hook(hf or toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")


def text(n=40, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_letters, k=11)) for _ in range(n)]


@pytest.fixture(scope="module")
def model():
    return toy_with_tokenizer()


@torch.no_grad()
def direct(texts, config=CONFIG):
    """Every site's rows by a hand-written forward of each block on its own."""
    hf = toy_hf("qwen3", torch.float32)
    blocks = torch.stack(list(token_blocks(texts, toy_tokenizer(), length=config.block_length)))
    _, seen = plain_forward(hf, blocks)
    return {site: seen[str(site)].flatten(0, 1) for site in SITES}


def stream(model, texts, **changes):
    config = StreamConfig(**{**vars(CONFIG), **changes})
    return list(activation_batches(model, SITES, texts, config=config))


def rows(batches, site):
    return torch.cat([batch.values[site] for batch in batches])


def matches(found, reference):
    """For each row of `found`, the row of `reference` that it is."""
    distance = torch.cdist(found, reference, compute_mode="donot_use_mm_for_euclid_dist")
    assert (distance.min(1).values < 1e-3).all()
    return distance.argmin(1).tolist()


def test_buffers_give_the_text_in_order_from_any_of_them(model):
    expected = direct(text())
    for first in (0, 2):
        start = first * 48
        for batch in buffers(model, SITES, text(), config=CONFIG, start=first):
            stop = start + len(batch.values[POST])
            for site in SITES:
                torch.testing.assert_close(
                    batch.values[site], expected[site][start:stop], atol=1e-4, rtol=1e-4
                )
            start = stop
        assert start == len(expected[POST])


@pytest.mark.parametrize("start", [1, 3, 7, 20])
def test_batches_can_be_taken_up_at_any_number(model, start):
    whole = stream(model, text(), reuse=2)
    config = StreamConfig(**{**vars(CONFIG), "reuse": 2})
    rest = list(activation_batches(model, SITES, text(), config=config, start=start))
    assert len(rest) == len(whole) - start
    for late, early in zip(rest, whole[start:], strict=True):
        assert all(torch.equal(late.values[site], early.values[site]) for site in SITES)


def test_a_row_is_the_same_token_at_every_site(model):
    """The last site's row says which token of the text it is; the others must be that token's."""
    expected, batches = direct(text()), stream(model, text())
    which = matches(rows(batches, POST), expected[POST])
    for site in SITES:
        torch.testing.assert_close(rows(batches, site), expected[site][which], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reuse", [1, 3])
@pytest.mark.parametrize("buffer_size", [8, 24, 1000])
def test_each_activation_is_seen_as_often_as_asked(model, reuse, buffer_size):
    """Buffers here hold whole passes and batches of 8 divide them, so nothing is dropped."""
    expected = direct(text())[POST]
    batches = stream(model, text(), reuse=reuse, batch_size=8, buffer_size=buffer_size)
    seen = Counter(matches(rows(batches, POST), expected))
    # The same letter at the start of two blocks is the same activation.
    once = Counter(matches(expected, expected))
    assert seen == {row: reuse * times for row, times in once.items()}


def test_every_reuse_of_a_buffer_is_in_another_order(model):
    batches = stream(model, text(), reuse=2)
    first, second = rows(batches[:3], POST), rows(batches[3:6], POST)
    assert not torch.equal(first, second)
    assert sorted(first[:, 0].tolist()) == sorted(second[:, 0].tolist())


def test_the_order_is_shuffled_and_depends_on_the_seed_alone(model):
    once, again = stream(model, text(), seed=1), stream(model, text(), seed=1)
    other = stream(model, text(), seed=2)
    in_order = direct(text())[POST][: len(rows(once, POST))]
    assert all(
        torch.equal(a.values[site], b.values[site])
        for a, b in zip(once, again, strict=True)
        for site in SITES
    )
    assert not torch.equal(rows(once, POST), rows(other, POST))
    assert not torch.allclose(rows(once, POST), in_order, atol=1e-3)


def test_one_buffer_is_in_memory_at_a_time(model):
    """The one before is gone when the next is made, however often each is handed out."""
    alive = []

    def watched():
        for buffer in buffers(model, SITES, text(), config=CONFIG):
            alive.append(weakref.ref(buffer.values[POST]))
            yield buffer
            del buffer
            assert alive[-1]() is None

    config = StreamConfig(**vars(CONFIG) | {"reuse": 2})
    assert list(shuffled(watched(), config=config))
    assert len(alive) > 2


@pytest.mark.parametrize("size", [7, 16, 48])
def test_nothing_but_full_batches(model, size):
    batches = stream(model, text(), batch_size=size)
    assert batches
    for batch in batches:
        assert all(len(value) == size for value in batch.values.values())
        assert all(len(flag) == size for flag in batch.outlier.values())
    assert stream(model, ["cab"], batch_size=size) == []


def test_a_buffer_smaller_than_a_batch_is_an_error():
    with pytest.raises(ValueError, match=r"the buffer \(8 activations\) must hold at least one"):
        StreamConfig(batch_size=16, buffer_size=8)


@pytest.mark.parametrize("name", ["block_length", "blocks_per_pass", "batch_size", "reuse"])
def test_every_number_of_the_stream_is_positive(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        StreamConfig(**{name: 0})


@pytest.fixture(scope="module")
def with_outliers():
    """A toy whose letter q has an embedding a thousand times too long."""
    hf = toy_hf("qwen3", torch.float32)
    with torch.no_grad():
        hf.model.embed_tokens.weight[LETTER_Q] *= 1000
    return toy_with_tokenizer(hf)


def test_the_tokens_far_longer_than_the_median_are_flagged(with_outliers):
    blocks = torch.stack(list(token_blocks(text(), toy_tokenizer(), length=CONFIG.block_length)))
    ordered = list(buffers(with_outliers, SITES, text(), config=CONFIG))
    planted = (blocks == LETTER_Q).flatten()
    for site in SITES:
        flagged = torch.cat([buffer.outlier[site] for buffer in ordered])
        # The MLP reads after a norm, so nothing it writes is long.
        assert torch.equal(flagged, planted if site != MLP else torch.zeros_like(planted))


def test_flags_go_with_their_rows_through_the_shuffle(with_outliers):
    batches = stream(with_outliers, text())
    norms = rows(batches, EMBED).norm(dim=-1)
    flags = torch.cat([batch.outlier[EMBED] for batch in batches])
    assert torch.equal(flags, norms > 10 * norms.median())
    assert flags.any()


def test_a_pair_leaves_out_what_is_an_outlier_at_either_site():
    x, y = torch.arange(8.0).view(4, 2), -torch.arange(8.0).view(4, 2)
    flags = {MLP: torch.tensor([True, False, False, False]), POST: torch.arange(4) == 2}
    batch = ActivationBatch({MLP: x, POST: y}, flags)
    source, target = batch.pair(MLP, POST)
    assert torch.equal(source, x[[1, 3]])
    assert torch.equal(target, y[[1, 3]])
    alone, same = batch.pair(POST, POST)
    assert torch.equal(alone, y[[0, 1, 3]])
    assert alone is same
