"""What is folded into the weights computes what was published: in float64, for any input."""

import torch

from saes.formats.folding import centred, gated, shrunk, unit_rows
from tests.saes.published import draw

D, M = 6, 9


def test_a_centre_goes_into_the_bias():
    W, b, c, x = draw(M, D, seed=0), draw(M, seed=1), draw(D, seed=2), draw(40, D, seed=3).double()
    found = x @ W.T.double() + centred(W, b, c)
    torch.testing.assert_close(found, (x - c) @ W.T.double() + b)


def test_a_gate_is_a_threshold_of_the_magnitude():
    W, x, c = draw(M, D, seed=0), draw(40, D, seed=3).double(), draw(D, seed=2)
    b_gate, r_mag, b_mag = (draw(M, seed=i) for i in (4, 5, 6))
    W_enc, b_enc, threshold = gated(W, b_gate, r_mag, b_mag, c)
    u = (x - c) @ W.T.double()
    f = (u + b_gate > 0) * (r_mag.double().exp() * u + b_mag).relu()
    pre = x @ W_enc.T + b_enc
    torch.testing.assert_close(pre.relu() * (pre > threshold), f)
    assert (f > 0).any()


def test_rows_of_length_one_write_the_same():
    W_enc, W_dec, b = draw(M, D, seed=0), draw(M, D, seed=1), draw(M, seed=2)
    W_dec[3] = 0
    x = draw(40, D, seed=3).double()
    E, e, W = unit_rows(W_enc.double(), b.double(), W_dec.double())
    norm = W.norm(dim=-1)
    torch.testing.assert_close(norm, torch.ones(M).double().index_fill(0, torch.tensor(3), 0))
    pre, longer = x @ W_enc.T.double() + b, x @ E.T + e
    torch.testing.assert_close(longer, pre * W_dec.double().norm(dim=-1))
    torch.testing.assert_close(longer.relu() @ W, pre.relu() @ W_dec.double())


def test_a_threshold_of_activations_times_lengths():
    W_dec, threshold, pre = draw(M, D, seed=1), draw(M, seed=2), draw(40, M, seed=3).double()
    W_dec[:3], threshold[:3] = 0, torch.tensor([0.0, 0.5, -0.5])
    found = shrunk(threshold, W_dec)
    assert found.isfinite().all()
    on = pre * W_dec.double().norm(dim=-1) > threshold
    assert torch.equal(pre > found, on)
    assert on.any(0)[:3].tolist() == [False, False, True]
