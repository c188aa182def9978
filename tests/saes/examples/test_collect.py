"""Examples are the ones a plain search over all activations finds, whatever the passes were."""

from dataclasses import fields

import pytest
import torch

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, pad_left
from saes.dictionary import DictionarySpec
from saes.examples.collect import (
    EMPTY,
    SHOWN,
    STEPS,
    WINDOW,
    Passages,
    Tally,
    find_examples,
)
from saes.features import Features
from tests.toys import random_dictionary, shared_toy

SITE = Site("mlp_out", 1)
ROWS, LENGTH, FEATURES = 23, 50, 6


def dictionary(architecture="relu", signed=False, width=FEATURES):
    k = 3 if architecture == "topk" else None
    spec = DictionarySpec(source=SITE, target=SITE, architecture=architecture, k=k, signed=signed)
    return random_dictionary(spec, width=width)


def whole(tokens):
    return Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))


@pytest.fixture
def text():
    """Rows of which some repeat others, so that the same passage comes up again."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 5, (ROWS, LENGTH), generator=generator)
    tokens[7:12] = tokens[0:5]
    return tokens


@pytest.fixture
def f():
    """Features of both signs, sparse, of few different values, so that some of them tie."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(-4, 9, (ROWS, LENGTH, FEATURES), generator=generator).double() / 4
    values *= torch.rand(values.shape, generator=generator) < 0.1
    values[..., 3] = -values[..., 3].abs()
    values[7:12] = values[0:5]
    return values


@pytest.fixture
def sampling_keys():
    return torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(3))


def tallied(f, text, sampling_keys, *, step=ROWS, top=4, sampled=3):
    tally = Tally(dictionary, top=top, sampled=sampled)
    for start in range(0, len(f), step):
        part = slice(start, start + step)
        tally.add(Features.of_coordinates(f[part]), whole(text[part]), sampling_keys[part], start)
    return tally.examples(text)


def context(row, position):
    return tuple(row[max(0, position - WINDOW) : position + 1].tolist())


def plain_search(f, text, rank, count):
    """Rows and positions of one feature: the best of each row, best first, no context twice."""
    best = [max(range(LENGTH), key=lambda p, r=r: (float(rank[r, p]), -p)) for r in range(len(f))]
    order = sorted(range(len(f)), key=lambda r: (-float(rank[r, best[r]]), r))
    kept, met = [], set()
    for r in order:
        same = context(text[r], best[r])
        if f[r, best[r]] > 0 and same not in met:
            met.add(same)
            kept.append((r, best[r]))
    return kept[:count]


def places(passages, feature):
    pairs = zip(passages.row[feature].tolist(), passages.position[feature].tolist(), strict=True)
    return [(r, p) for r, p in pairs if r != EMPTY]


@pytest.mark.parametrize("step", [1, 4, ROWS])
def test_top_examples_are_those_of_a_plain_search(f, text, sampling_keys, step):
    found = tallied(f, text, sampling_keys, step=step)
    for i in range(FEATURES):
        expected = plain_search(f[..., i], text, f[..., i], 4)
        assert places(found.top, i) == expected
        assert found.top.activation[i, : len(expected)].tolist() == [
            float(f[r, p, i]) for r, p in expected
        ]


def test_some_features_after_the_other_have_the_examples_of_all_at_once(
    f, text, sampling_keys, small_chunks
):
    whole_width = tallied(f, text, sampling_keys)
    small_chunks("saes.features.DENSE", 4 * f[..., 0].numel())
    in_parts = tallied(f, text, sampling_keys)
    assert FEATURES % 4
    for kind in ("top", "sampled"):
        for part in fields(Passages):
            found, expected = (
                getattr(getattr(x, kind), part.name) for x in (in_parts, whole_width)
            )
            assert torch.equal(found, expected)
    assert torch.equal(in_parts.fired, whole_width.fired)


@pytest.mark.parametrize("step", [1, 4, ROWS])
def test_sampled_examples_are_active_positions_with_the_largest_keys(f, text, sampling_keys, step):
    found = tallied(f, text, sampling_keys, step=step)
    for i in range(FEATURES):
        rank = torch.where(f[..., i] > 0, sampling_keys, -1)
        assert places(found.sampled, i) == plain_search(f[..., i], text, rank, 3)


def test_every_active_position_has_the_same_chance():
    """One row, two active positions of very different strength: each is drawn half the time."""
    text = torch.arange(4)[None, :]
    f = torch.zeros(1, 4, FEATURES)
    f[0, 1], f[0, 3] = 0.1, 9.0
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(1, 4, generator=generator) for _ in range(400)]
    drawn = [places(tallied(f, text, keys, sampled=1).sampled, 0)[0][1] for keys in draws]
    assert set(drawn) == {1, 3}
    assert 160 < drawn.count(1) < 240


def test_density_and_largest_activation(f, text, sampling_keys):
    found = tallied(f, text, sampling_keys)
    for i in range(FEATURES):
        values = f[..., i]
        assert found.density(i) == pytest.approx(float((values > 0).double().mean()))
        largest = float(values.max())
        assert found.largest(i) == (largest if largest > 0 else None)
    assert found.largest(3) is None, "a feature that is only ever negative is not active"
    assert found.of(3, found.top) == found.of(3, found.sampled) == []


def test_an_example_is_what_the_text_says_to_the_precision_kept(f, text, sampling_keys):
    found = tallied(f, text, sampling_keys)
    for passages in (found.top, found.sampled):
        for i in range(FEATURES):
            for (r, p), example in zip(places(passages, i), found.of(i, passages), strict=True):
                first, last = max(0, p - WINDOW), min(LENGTH, p + WINDOW + 1)
                assert example.tokens == text[r, first:last].tolist()
                assert example.peak == p - first
                exact = f[r, first:last, i]
                off = (torch.tensor(example.values) - exact).abs().max()
                assert off <= exact.abs().max() / STEPS / 2 + 1e-6
                assert example.values[example.peak] == float(exact[example.peak])


def test_padding_changes_nothing(f, text, sampling_keys):
    rows = [text[0].tolist(), text[1, 20:].tolist(), text[2, 37:].tolist()]
    batch = pad_left(rows, 99)
    padded = f[:3].clone()
    tally = Tally(dictionary, top=3, sampled=0)
    tally.add(Features.of_coordinates(padded), batch, sampling_keys[:3], 0)
    apart = Tally(dictionary, top=3, sampled=0)
    for i, start in enumerate((0, 20, 37)):
        one, row = Features.of_coordinates(f[i : i + 1, start:]), whole(text[i : i + 1, start:])
        apart.add(one, row, sampling_keys[i : i + 1, start:], i)
    one, other = (t.examples([torch.tensor(row) for row in rows]) for t in (tally, apart))
    assert one.tokens == other.tokens == LENGTH + 30 + 13
    assert torch.equal(one.fired, other.fired)
    assert torch.equal(one.counts, other.counts)
    for i in range(FEATURES):
        assert one.of(i, one.top) == other.of(i, other.top)


def test_a_state_is_gone_on_from(f, text, sampling_keys):
    first = Tally(dictionary, top=4, sampled=3)
    first.add(Features.of_coordinates(f[:9]), whole(text[:9]), sampling_keys[:9], 0)
    second = Tally(dictionary, top=4, sampled=3)
    second.restore(first.state())
    second.add(Features.of_coordinates(f[9:]), whole(text[9:]), sampling_keys[9:], 9)
    expected = tallied(f, text, sampling_keys).top
    assert torch.equal(second.examples(text).counts, tallied(f, text, sampling_keys).counts)
    assert all(
        torch.equal(v, vars(expected)[k]) for k, v in vars(second.examples(text).top).items()
    )


@pytest.mark.parametrize(
    ("architecture", "signed"), [("relu", False), ("topk", False), ("topk", True)]
)
def test_the_model_is_read_at_the_dictionarys_source(toy_model, architecture, signed):
    reads = dictionary(architecture, signed)
    tokens = torch.randint(1, 20, (5, 12), generator=torch.Generator().manual_seed(4))
    wanted = [4, 1]
    (found,) = find_examples(
        toy_model, [reads], [wanted], [whole(tokens[:2]), whole(tokens[2:])], top=5
    )
    with torch.no_grad(), capture(toy_model, [SITE]) as seen:
        run_through(toy_model, whole(tokens), 1)
    f = reads.encode(seen[SITE]).dense()
    for place, feature in enumerate(wanted):
        values = f[..., feature]
        assert float(found.fired[place]) == float((values > 0).sum())
        peaks = sorted((float(v.max()) for v in values if v.max() > 0), reverse=True)
        shown = [e.values[e.peak] for e in found.of(place, found.top)]
        assert shown == pytest.approx(peaks[: len(shown)], rel=1e-6)
        assert shown


def test_prompts_of_different_lengths():
    model = shared_toy("qwen3", torch.float32)
    spec = DictionarySpec(source=SITE, target=SITE, architecture="relu")
    reads = random_dictionary(spec, width=4, dtype=torch.float32)
    rows = [[3, 4, 5, 6, 7, 8], [9, 10, 11]]
    (padded,) = find_examples(model, [reads], [range(4)], [pad_left(rows, 0)], top=2)
    (apart,) = find_examples(
        model, [reads], [range(4)], [pad_left([row], 0) for row in rows], top=2
    )
    assert padded.tokens == apart.tokens == 9
    for i in range(4):
        one, other = padded.of(i, padded.top), apart.of(i, apart.top)
        assert [(e.tokens, e.peak) for e in one] == [(e.tokens, e.peak) for e in other]


def test_nothing_wanted_is_nothing_found(toy_model):
    assert (
        find_examples(toy_model, [], [], [whole(torch.ones(1, 3, dtype=torch.int64))], top=2) == []
    )


def test_a_passage_has_room_for_both_sides(f, text, sampling_keys):
    assert tallied(f, text, sampling_keys).top.window.shape == (FEATURES, 4, SHOWN)
    assert SHOWN == 2 * WINDOW + 1
