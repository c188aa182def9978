"""Terms of somebody's own, folded: raw activations in, raw activations out."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.formats.place import entry_of, local_place
from saes.formats.terms import Terms
from tests.saes.published import draw

D, M = 6, 9
AXES = {"W_enc": "ms", "b_enc": "m", "W_dec": "mt", "b_dec": "t"}


def weights(**more):
    shapes = {"W_enc": (M, D), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,), **more}
    return {name: draw(*shape, seed=i).double() for i, (name, shape) in enumerate(shapes.items())}


def entry(folder):
    return entry_of(local_place(folder), (Site("mlp_in", 1), Site("mlp_out", 1)), "one.pt")


def relu(w, x):
    return (x @ w["W_enc"].T + w["b_enc"]).relu() @ w["W_dec"] + w["b_dec"]


def test_shifts_and_scales_are_folded_away():
    w, x = weights(mean=(D,), c=(D,)), draw(40, D, seed=9).double()
    terms = Terms(
        axes=AXES | {"mean": "d", "c": "d"},
        names={name: name for name in AXES} | {"mean": "mean", "c": "centre"},
        mean="mean",
        centre="centre",
        scale=0.5,
        target_scale=4.0,
    )
    folded = terms.folded(w)
    assert set(folded) == set(AXES)
    plain = relu(w, 0.5 * (x - w["mean"]) - w["c"]) / 4 + w["mean"]
    torch.testing.assert_close(relu(folded, x), plain)


def test_a_skip_connection_reads_the_scaled_input_and_is_scaled_with_the_rest():
    w, x = weights(W_skip=(D, D)), draw(40, D, seed=9).double()
    folded = Terms(axes=AXES | {"W_skip": "ts"}, scale=0.5, target_scale=4.0).folded(w)
    plain = (relu(w, 0.5 * x) + 0.5 * x @ w["W_skip"].T) / 4
    torch.testing.assert_close(relu(folded, x) + x @ folded["W_skip"].T, plain)


@pytest.mark.parametrize("ranked", [{"architecture": "jumprelu"}, {"architecture": "topk", "k": 4}])
def test_a_feature_that_writes_nothing_is_read_as_off_where_rows_lengths_rank(tmp_path, ranked):
    w = {name: value.float() for name, value in weights().items()}
    w["W_dec"][2] = 0
    axes = AXES
    if ranked["architecture"] == "jumprelu":
        w, axes = w | {"threshold": torch.zeros(M)}, AXES | {"threshold": "m"}
    one = Terms(axes=axes, ranked_by="norm", **ranked).read(tmp_path, w, entry(tmp_path))
    f = one.encode(draw(40, D, seed=9)).dense()
    assert not f[:, 2].any()
    assert f.any(0).sum() == M - 1


def test_what_is_subtracted_and_added_is_one_width(tmp_path):
    w = weights() | {"W_dec": draw(M, 4, seed=1).double(), "b_dec": draw(4, seed=2).double()}
    assert Terms(axes=AXES, architecture="relu").read(tmp_path, w, entry(tmp_path)).target
    with pytest.raises(ValueError, match=r"W_dec has shape \(9, 4\), expected \(9, 6\)") as error:
        Terms(axes=AXES, architecture="relu", centre="b_dec").read(tmp_path, w, entry(tmp_path))
    assert str(error.value).startswith(str(tmp_path))


def test_matrices_are_turned_to_a_row_for_each_feature_and_one_threshold_is_everyones():
    w = weights() | {"threshold": torch.tensor(0.5)}
    turned = w | {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T}
    axes = {"W_enc": "sm", "W_dec": "tm", "b_enc": "m", "b_dec": "t", "threshold": ""}
    found = Terms(axes=axes).ours(turned)
    assert torch.equal(found["W_enc"], w["W_enc"])
    assert torch.equal(found["W_dec"], w["W_dec"])
    assert found["threshold"].tolist() == [0.5] * M
