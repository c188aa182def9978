"""One file of weights at some activations: what there is to choose, and the errors it leaves."""

import pytest
import torch

from saes.evaluation.convention_files import Here, TriedFile
from saes.evaluation.conventions import SiteShift
from saes.formats.checkpoint import checkpoint
from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place
from tests.saes.published import draw

D, M = 6, 9
TENSORS = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
OWN = (SiteShift("resid_post", 0),) * 2


def tried(folder, *, tensors=TENSORS, W_enc=(M, D), **told):
    w = {"W_enc": W_enc, "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,), "other": (D,)}
    saved = {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(w.items())}
    torch.save(saved | {"norm": 3.0, "std_off": -1.0, "step": 7}, folder / "layer_1.pt")
    what = DictionaryMap(
        files="layer_{layer}.pt", site="resid_post.{layer}", tensors=tensors, k="4", **told
    )
    (entry,) = what.find(local_place(folder))
    return TriedFile(what, checkpoint(entry)), what.load(entry) if W_enc == (M, D) else None


def test_norm_outliers_do_not_count_and_errors_are_summed_by_block():
    x = draw(2, 5, D, seed=0)
    x[0, 0] *= 1000
    here = Here.of(x, x)
    assert len(here.x) == 9
    assert here.by_block(torch.ones(9, dtype=torch.float64)).tolist() == [4, 5]
    away = (here.x.double() - here.x.double().mean(0)).square().sum(-1)
    torch.testing.assert_close(here.spread, torch.stack([away[:4].sum(), away[4:].sum()]))


def test_the_map_s_own_choices_come_first(tmp_path):
    file, _ = tried(tmp_path, scale="1/norm", centre="b_dec", activation="signed-topk")
    W_enc, W_dec, scales, centres, signs = file.options(D, D)
    assert (W_enc, W_dec) == (["md"], ["md"])
    assert scales[:2] == ["1/norm", "none"]
    assert {"norm", "sqrt(d)/norm", "sqrt(d)/mean norm"} <= set(scales)
    # A scale is positive, and a count of steps is not called one.
    assert not {"std_off", "step"} & set(scales)
    assert centres == ["b_dec", "none", "other"]
    assert signs == ["signed-topk", "topk"]


@pytest.mark.parametrize("control", [None, 0])
def test_the_errors_of_the_map_as_it_stands_are_those_of_its_dictionary(tmp_path, control):
    file, one = tried(tmp_path, scale="2", centre="other")
    x = draw(2, 20, D, seed=5)
    here = Here.of(x, x)
    ((given, (errors, spread)),) = file.sums(here, [file.given(OWN)], control)
    assert given.told()["scale"] == "2"
    assert torch.equal(spread, here.spread)
    expected = here.by_block((here.x - one(here.x)).double().square().sum(-1))
    assert torch.allclose(errors, expected, rtol=1e-4) == (control is None)


def test_weights_of_another_width_are_another_model_s(tmp_path):
    file, _ = tried(tmp_path, W_enc=(M, D - 1))
    with pytest.raises(ValueError, match=r"layer_1\.pt: W_enc has shape \(9, 5\), but the model"):
        file.options(D, D)
