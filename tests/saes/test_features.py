"""Sparse features are the dense ones: every operation against plain dense tensors."""

import pytest
import torch

from saes.features import (
    Features,
    FeatureSums,
    cat,
    largest,
    nonzero,
    packed,
    row_products,
    weighted_rows,
)
from tests.saes.formulas import KINDS, encode, suite_of

WIDTH, D = 7, 4


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def some(generator, *shape, slots=5):
    """Features of both signs, the same one in several slots of a token, some slots with 0."""
    index = torch.randint(WIDTH, (*shape, slots), generator=generator)
    value = draw(generator, *shape, slots)
    return Features(index, value * (value.abs() > 0.3), WIDTH)


def plainly(f):
    """Slot by slot."""
    found = torch.zeros(*f.value.shape[:-1], f.width, dtype=f.value.dtype)
    for slot in range(f.slots):
        index = f.index[..., slot : slot + 1]
        found.scatter_(-1, index, found.gather(-1, index) + f.value[..., slot : slot + 1])
    return found


def every_kind(generator):
    """Repeats, coordinates, nothing at all, no slots, no tokens."""
    return [
        some(generator, 3, 2),
        Features.of_coordinates(draw(generator, 3, 2, WIDTH)),
        some(generator, 3, 2).times(0.0 * draw(generator, 3, 2, 1)),
        Features.none((3, 2), WIDTH, draw(generator, 1)),
        some(generator, 0, 2),
    ]


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("values", [1, 13, 24, 1000])
def test_in_parts_all_features_are_there_and_never_more_than_said(generator, small_chunks, values):
    small_chunks("saes.features.DENSE", values)
    for f in (some(generator, 2, 3), Features.of_coordinates(draw(generator, 2, 3, WIDTH))):
        parts = list(f.dense_parts())
        assert all(value.numel() <= max(values, 6) for _, value in parts)
        assert [i for part, _ in parts for i in range(WIDTH)[part]] == list(range(WIDTH))
        same(torch.cat([value for _, value in parts], -1), plainly(f))


def test_a_feature_in_several_slots_has_the_sum_of_them(generator):
    for f in every_kind(generator):
        same(f.dense(), plainly(f))


def test_chosen_features_are_columns_of_all(generator):
    for f in every_kind(generator):
        for chosen in ([], [3], [6, 0, 2], [5, 1, 0, 6, 4, 3, 2]):
            chosen = torch.tensor(chosen, dtype=torch.long)
            same(f.of(chosen), plainly(f)[..., chosen])
        asked = [2, 5, 2, 0]
        same(f.of_each(asked), plainly(f).movedim(-1, 0)[asked])


def test_a_factor_may_be_of_a_slot_of_a_token_or_a_mask(generator):
    f = some(generator, 3, 2)
    of_tokens = draw(generator, 3, 2, 1)
    same(f.times(of_tokens).dense(), plainly(f) * of_tokens)
    mask = f.index != 3
    expected = plainly(f)
    expected[..., 3] = 0
    same(f.times(mask).dense(), expected)


def test_a_sum_has_the_values_of_both(generator):
    kinds = every_kind(generator)[:4]
    for a in kinds:
        for b in kinds:
            same(a.plus(b).dense(), plainly(a) + plainly(b))
    assert Features.of_coordinates(plainly(kinds[0])).plus(kinds[1]).whole


@pytest.mark.parametrize("shape", [(1, 2), (3, 1), (1, 1)])
def test_an_axis_of_length_one_is_the_same_for_all(generator, shape):
    a = some(generator, 3, 2)
    others = [
        some(generator, *shape, slots=2),
        Features.of_coordinates(draw(generator, *shape, WIDTH)),
        Features.none(shape, WIDTH, draw(generator, 1)),
    ]
    for b in others:
        same(a.plus(b).dense(), plainly(a) + plainly(b))
        same(b.plus(a).dense(), plainly(a) + plainly(b))
        same(b.expand(3, 2).dense(), plainly(b).expand(3, 2, WIDTH))


def test_coalesced_features_are_the_same_each_in_one_slot(generator):
    for f in every_kind(generator):
        found = f.coalesced()
        same(found.dense(), plainly(f))
        tokens = found.index.flatten(0, -2), found.value.flatten(0, -2)
        for index, value in zip(*tokens, strict=True):
            named = index[value != 0].tolist()
            assert len(named) == len(set(named))


def test_features_that_are_off_stand_for_nothing(generator):
    f = some(generator, 3, 2).coalesced()
    same(f.on().dense(), (plainly(f) != 0).double())


def test_tokens_are_picked_as_from_a_tensor(generator):
    for f in every_kind(generator)[:4]:
        for at in (0, slice(1, 3), (slice(None), 1), torch.tensor([2, 0, 0])):
            same(f[at].dense(), plainly(f)[at])


def test_each_token_stands_in_its_column(generator):
    columns = some(generator, 3, 2).columns()
    assert columns.tolist() == [[0, 1]] * 3


def test_parts_with_other_numbers_of_slots_stand_one_after_another(generator):
    parts = [some(generator, 2, 3, slots=slots) for slots in (2, 5, 1)]
    parts.append(Features.none((4, 3), WIDTH, draw(generator, 1)))
    same(cat(parts).dense(), torch.cat([plainly(part) for part in parts]))


def test_what_is_not_zero_is_kept_whatever_its_sign(generator):
    f = draw(generator, 6, WIDTH)
    f = f * (f.abs() > 0.7)
    f[2] = 0
    found = nonzero(f)
    same(found.dense(), f)
    assert found.slots == (f != 0).sum(-1).max()
    same(nonzero(0 * f).dense(), 0 * f)


def test_features_given_one_by_one_are_packed_by_token(generator):
    token, feature = torch.tensor([0, 0, 2, 2, 2, 5]), torch.tensor([3, 1, 0, 6, 2, 4])
    value = draw(generator, 6)
    expected = torch.zeros(7, WIDTH, dtype=torch.float64)
    expected[token, feature] = value
    found = packed(token, feature, value, 7, WIDTH)
    same(found.dense(), expected)
    assert found.slots == 3


@pytest.mark.parametrize("signed", [False, True])
def test_the_largest_are_kept_and_the_others_left_out(generator, signed):
    pre = draw(generator, 9, WIDTH) - 0.5
    kept = pre >= pre.sort(-1, descending=True).values[:, 2:3]
    expected = pre * kept if signed else pre.clamp(min=0) * kept
    same(largest(pre, 3, signed=signed).dense(), expected)


def test_products_with_rows_are_dense_products(generator):
    rows = draw(generator, WIDTH, D)
    for f in every_kind(generator):
        same(weighted_rows(f, rows), plainly(f) @ rows)


def test_products_of_tokens_with_the_rows_of_their_features(generator):
    rows = draw(generator, WIDTH, D)
    for f in every_kind(generator):
        x = draw(generator, *f.value.shape[:-1], D)
        same(row_products(x, rows, f.index), (x @ rows.T).gather(-1, f.index))
        # Also where the vectors are a part of a larger tensor, or one for all tokens.
        wide = draw(generator, *f.value.shape[:-1], 2 * D)[..., ::2]
        same(row_products(wide, rows, f.index), (wide @ rows.T).gather(-1, f.index))


def test_writing_and_reading_along_are_adjoint(generator):
    f, rows = some(generator, 3, 2), draw(generator, WIDTH, D)
    g = draw(generator, 3, 2, D)
    along = (f.value * row_products(g, rows, f.index)).sum()
    same((g * weighted_rows(f, rows)).sum(), along)


@pytest.mark.parametrize("kind", ["sparse", "whole"])
def test_sums_over_tokens_are_those_of_dense_features(generator, kind):
    """In parts, of tokens that count, at positions that repeat; some positions have none."""
    total = torch.zeros(4, WIDTH, dtype=torch.float64)
    counts = torch.zeros(4, dtype=torch.float64)
    sums = FeatureSums()
    for _ in range(3):
        f = some(generator, 5, 2, slots=4)
        f = f if kind == "sparse" else Features.of_coordinates(plainly(f))
        position = torch.randint(3, (5, 2), generator=generator)
        token = torch.rand(5, 2, generator=generator) > 0.3
        sums.add(f, position, (f.value != 0) & token.unsqueeze(-1))
        total.index_add_(0, position.flatten(), (plainly(f) * token.unsqueeze(-1)).flatten(0, 1))
        counts.index_add_(0, position.flatten(), token.double().flatten())
    position, feature, value = sums.entries()
    found = torch.zeros_like(total)
    found[position, feature] = value
    same(found, total)
    assert len({*zip(position.tolist(), feature.tolist(), strict=True)}) == len(position)
    mean = sums.mean(counts, torch.float64)
    same(mean.dense(), total / counts.clamp(min=1).unsqueeze(-1))
    assert mean.whole == (kind == "whole")
    assert mean.value.shape[0] == 4


def test_sums_are_added_in_double(generator):
    sums, n = FeatureSums(), 2000
    value = torch.full((n, 1), 0.1, dtype=torch.float32)
    f = Features(torch.zeros(n, 1, dtype=torch.long), value, WIDTH)
    sums.add(f, torch.zeros(n, dtype=torch.long), f.value != 0)
    _, _, (total,) = sums.entries()
    assert float(total) == pytest.approx(n * float(value[0]), rel=1e-13)


def read_by_a(generator, kind):
    """A dictionary of this kind and tokens that it reads."""
    (dictionary,) = suite_of(kind, "mlp_out.1").values()
    return dictionary, draw(generator, 5, 3, dictionary.W_enc.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_and_its_gradient_are_those_of_the_dense_formula(generator, kind):
    dictionary, x = read_by_a(generator, kind)
    x.requires_grad_()
    f, expected = dictionary.encode(x), encode(dictionary, x)
    same(f.dense(), expected)
    weight = draw(generator, dictionary.n_features)
    direction = draw(generator, len(dictionary.b_dec))
    for of_sparse, of_dense in [
        (f.dense() @ weight, expected @ weight),
        ((dictionary.decode(f) @ direction).sin(), _written(dictionary, expected, direction).sin()),
        (dictionary.write(f).square().sum(-1), (expected @ dictionary.W_dec).square().sum(-1)),
    ]:
        found = torch.autograd.grad(of_sparse.sum(), x, retain_graph=True)
        same(found, torch.autograd.grad(of_dense.sum(), x, retain_graph=True))
    assert not dictionary.encode(x.detach()).value.requires_grad


def _written(dictionary, f, direction):
    return (f @ dictionary.W_dec + dictionary.b_dec) @ direction


@pytest.mark.parametrize("features", [None, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_how_much_is_encoded_at_once_changes_nothing(generator, kind, features, small_chunks):
    """Some tokens, and of a wide dictionary some features: fewer than k, or not all parts alike."""
    dictionary, x = read_by_a(generator, kind)
    whole, move = dictionary.encode(x).dense(), dictionary.encode_move(x, x.flip(0))
    n = features or dictionary.n_features
    small_chunks("saes.dictionary.FEATURES_AT_ONCE", n)
    small_chunks("saes.dictionary.ENCODED_AT_ONCE", 2 * n)
    same(dictionary.encode(x).dense(), whole)
    same(dictionary.encode(x[:0]).dense(), whole[:0])
    parts = dictionary.encode_move(x, x.flip(0))
    same(parts.before.dense(), move.before.dense())
    same(parts.after.dense(), move.after.dense())
    same(parts.largest, move.largest)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_has_the_features_of_both_ends_and_the_largest_change(generator, kind):
    dictionary, x = read_by_a(generator, kind)
    to = draw(generator, *x.shape)
    move = dictionary.encode_move(x, to)
    same(move.before.dense(), dictionary.encode(x).dense())
    same(move.after.dense(), dictionary.encode(to).dense())
    same(move.largest, ((to - x) @ dictionary.W_enc.T).abs().amax(-1))
    assert not dictionary.encode_move(x[:0], to[:0]).largest.numel()


@pytest.mark.parametrize("kind", KINDS)
def test_what_features_read_and_write_are_products_with_the_matrices(generator, kind):
    dictionary, x = read_by_a(generator, kind)
    W_enc, W_dec = dictionary.W_enc, dictionary.W_dec
    f = dictionary.encode(x)
    same(dictionary.responses(x, f.index), (x @ W_enc.T).gather(-1, f.index))
    same(dictionary.along(x, f.index), (x @ W_dec.T).gather(-1, f.index))
    same(dictionary.read_by(f), f.dense() @ W_enc)
    same(dictionary.write(f), f.dense() @ W_dec)
    same(dictionary.decode(f), f.dense() @ W_dec + dictionary.b_dec)
    # Some features of some tokens, not those that are on.
    index = torch.randint(dictionary.n_features, (5, 3, 2), generator=generator)
    same(dictionary.responses(x, index), (x @ W_enc.T).gather(-1, index))
    same(dictionary.along(x, index), (x @ W_dec.T).gather(-1, index))


def test_only_some_features_are_left_in_as_few_slots(generator):
    index = torch.tensor([[[3, 1, 7, 5], [2, 3, 0, 0]]])
    f = Features(index, draw(generator, 1, 2, 4), 8)
    these = torch.tensor([[[False, True, False, True], [False, False, False, True]]])
    found = f.only(these)
    assert found.slots == 2
    same(found.dense(), f.times(these).dense())
    assert f.only(torch.zeros_like(these)).slots == 0
    assert f.only(torch.ones_like(these)).slots == 4
    whole = Features.of_coordinates(draw(generator, 1, 2, 4))
    same(whole.only(these).dense(), whole.times(these).dense())
