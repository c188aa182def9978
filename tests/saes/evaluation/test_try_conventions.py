"""Conventions that were planted are found, on data, and what cannot be told apart is said."""

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from saes.evaluation.convention_files import Here
from saes.evaluation.conventions import as_map
from saes.evaluation.metrics import evaluate, held_out_blocks
from saes.evaluation.try_conventions import activations, try_conventions
from saes.formats.guessed import guessed
from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place
from saes.suite import load_suite
from tests.saes.published import draw

SITE = Site("resid_post", 2)


@pytest.fixture(scope="module")
def model():
    return load("bundled")


@pytest.fixture(scope="module")
def blocks(model):
    from hooked_qwen.texts import texts_of

    return held_out_blocks(texts_of(["bundled"])(), model, tokens=6 * 128)


@pytest.fixture(scope="module")
def trained():
    """A TopK dictionary of the bundled model; where few are positive its k are negative too."""
    return load_suite("bundled")[SITE]


def planted(folder, one, *, scale=1.0, centred=False, turned=False, layer=2, name="layer", **more):
    """The same dictionary in a convention of somebody's own."""
    w = {name: value.double() for name, value in one.state_dict().items()}
    w |= {"W_enc": w["W_enc"] / scale, "W_dec": w["W_dec"] * scale, "b_dec": w["b_dec"] * scale}
    if centred:
        w["b_enc"] = w["b_enc"] + w["W_enc"] @ w["b_dec"]
    if turned:
        w |= {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T}
    saved = {name: value.float().contiguous() for name, value in w.items()}
    torch.save({"state": saved, "k": one.spec.k, **more}, folder / f"{name}_{layer}.pt")


PLANTED = {
    "as ours": ({}, {"scale": "none", "centre": "none", "W_enc": "md"}),
    "centred": ({"centred": True}, {"centre": "b_dec"}),
    "turned": ({"turned": True}, {"W_enc": "dm", "W_dec": "dm"}),
    "scaled": ({"scale": 0.5, "scale_of_input": 0.5}, {"scale": "scale_of_input"}),
    "scaled by a norm": ({"scale": 128**0.5 / 30, "norm": 30.0}, {"scale": "sqrt(d)/norm"}),
    "scaled and centred": (
        {"scale": 0.25, "std": 4.0, "centred": True, "turned": True},
        {"scale": "1/std", "centre": "b_dec", "W_enc": "dm"},
    ),
    "a layer too late": ({"layer": 3}, {"site": "resid_post.{layer-1}"}),
    "a layer too early": ({"layer": 1}, {"site": "resid_post.{layer+1}"}),
    "of the stream": ({"name": "mlp_out.layer"}, {"site": "resid_post.{layer}"}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_convention_is_found_and_written_as_a_map(tmp_path, model, blocks, trained, case):
    how, expected = PLANTED[case]
    planted(tmp_path, trained, **how)
    place = local_place(tmp_path)
    what = guessed(place)
    trial = try_conventions(model, what, what.find(place), blocks)
    told = trial.best.convention.told()
    assert {name: told[name] for name in expected} == expected
    assert trial.fits
    assert trial.best.fvu < 0.25 < trial.untrained
    if case not in ("scaled", "scaled by a norm", "scaled and centred"):
        assert not trial.is_ambiguous
    # The map that it becomes reads the dictionary that was saved, at the site it was trained on.
    found = as_map(trial.best.convention, what, place, what.find(place))
    (entry,) = found.find(place)
    one = found.load(entry)
    assert one.source == SITE
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(getattr(one, name), value, atol=2e-5, rtol=1e-5)


def test_the_fvu_is_that_of_evaluate(tmp_path, model, blocks, trained):
    planted(tmp_path, trained)
    what = guessed(place := local_place(tmp_path))
    trial = try_conventions(model, what, what.find(place), blocks)
    (quality,) = evaluate(model, [trained], blocks)
    # Here outliers are judged by all of the text, there by some blocks of it at a time.
    assert trial.best.fvu == pytest.approx(quality.fvu, rel=0.02)


def test_a_scale_that_is_in_no_file_is_measured(tmp_path, model, blocks, trained):
    here = Here.of(*[activations(model, blocks, {SITE})[SITE]] * 2)
    norm = float(here.x.norm(dim=-1).mean())
    planted(tmp_path, trained, scale=128**0.5 / norm)
    what = guessed(place := local_place(tmp_path))
    trial = try_conventions(model, what, what.find(place), blocks)
    assert trial.best.convention.scale == "sqrt(d)/mean norm"
    measured = as_map(trial.best.convention, what, place, what.find(place))
    measured = measured.measured(norm, norm, 128, 128)
    one = measured.load(measured.find(place)[0])
    torch.testing.assert_close(one.W_dec, trained.W_dec, atol=1e-4, rtol=1e-4)


def test_what_reconstructs_the_same_is_said_to_be_the_same(tmp_path, model, blocks, trained):
    planted(tmp_path, trained)
    what = guessed(place := local_place(tmp_path))
    trial = try_conventions(model, what, what.find(place), blocks)
    same = [one for one in trial.tried[1:] if one.is_the_same]
    # None of the k largest is negative here, so keeping negative ones changes nothing.
    assert [one.convention.activation for one in same] == ["signed-topk"]
    assert trial.second is not None
    assert trial.second.worse > 0
    assert trial.best.convention == trial.given


def test_a_scale_near_the_measured_one_is_ambiguous(tmp_path, model, blocks, trained):
    here = Here.of(*[activations(model, blocks, {SITE})[SITE]] * 2)
    scale = 1.001 * 128**0.5 / float(here.x.norm(dim=-1).mean())
    planted(tmp_path, trained, scale=scale, scale_of_input=scale)
    what = guessed(place := local_place(tmp_path))
    trial = try_conventions(model, what, what.find(place), blocks)
    assert trial.is_ambiguous
    scales = {one.convention.scale for one in (trial.best, trial.second)}
    assert scales == {"sqrt(d)/mean norm", "scale_of_input"}


def test_negative_ones_that_count_are_found(tmp_path, model, blocks):
    """Forty principal directions, each of them on with either sign."""
    seen = Here.of(*[activations(model, blocks, {SITE})[SITE]] * 2)
    mean = seen.x.mean(0)
    rows = torch.linalg.svd(seen.x - mean, full_matrices=False)[2][:40]
    w = {"W_enc": rows, "W_dec": rows, "b_enc": -rows @ mean, "b_dec": mean}
    torch.save({**w, "k": 40}, tmp_path / "layer_2.pt")
    what = guessed(place := local_place(tmp_path))
    trial = try_conventions(model, what, what.find(place), blocks)
    assert trial.best.convention.activation == "signed-topk"
    assert trial.best.fvu < 0.2


@pytest.mark.parametrize("tied", [True, False])
def test_an_untrained_dictionary_fits_nothing(tmp_path, model, blocks, trained, tied):
    rows = torch.nn.functional.normalize(draw(*trained.W_dec.shape, seed=4), dim=-1)
    other = rows if tied else draw(*trained.W_dec.shape, seed=5)
    w = {"W_enc": other, "W_dec": rows, "b_enc": torch.zeros(len(rows)), "b_dec": trained.b_dec}
    torch.save({**w, "k": 3}, tmp_path / "layer_2.pt")
    what = guessed(place := local_place(tmp_path))
    assert not try_conventions(model, what, what.find(place), blocks).fits


def test_a_scale_of_each_token_is_told(tmp_path, model, blocks):
    """Principal directions of tokens of length one, of which a model's own are far."""
    here = Here.of(*[activations(model, blocks, {SITE})[SITE]] * 2)
    x = here.x / here.x.norm(dim=-1, keepdim=True)
    mean = x.mean(0)
    rows = torch.linalg.svd(x - mean, full_matrices=False)[2][:60]
    rows = torch.cat([rows, -rows])
    w = {"W_enc": rows, "W_dec": rows, "b_enc": torch.zeros(120), "b_pre": mean}
    torch.save({**w, "k": 60}, tmp_path / "layer_2.pt")
    what = guessed(place := local_place(tmp_path))
    best = try_conventions(model, what, what.find(place), blocks).best.convention
    assert (best.scale, best.centre) == ("1/norm of each token", "b_dec")


def test_a_transcoder_keeps_its_two_sites(tmp_path, model, blocks):
    one = load_suite("bundled", mlp="transcoder")[Site("mlp_out", 1)]
    planted(tmp_path, one, layer=1)
    place = local_place(tmp_path)
    what = DictionaryMap(
        files="layer_{layer}.pt",
        site="mlp_in.{layer}",
        target="mlp_out.{layer}",
        tensors={name: f"state.{name}" for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
        k="k",
    )
    trial = try_conventions(model, what, what.find(place), blocks)
    assert trial.best.convention.told()["site"] == "mlp_in.{layer}-mlp_out.{layer}"
    assert trial.fits


def test_files_of_another_model_are_refused(tmp_path, model, blocks):
    w = {"W_enc": draw(9, 6, seed=0), "W_dec": draw(9, 6, seed=1), "b_enc": draw(9, seed=2)}
    torch.save({**w, "k": 2}, tmp_path / "layer_2.pt")
    what = guessed(place := local_place(tmp_path))
    with pytest.raises(ValueError, match=r"W_enc has shape \(9, 6\), but the model is 128 wide"):
        try_conventions(model, what, what.find(place), blocks)
    (tmp_path / "layer_2.pt").rename(tmp_path / "layer_30.pt")
    what = guessed(place := local_place(tmp_path))
    with pytest.raises(ValueError, match=r"is of resid_post\.30: the model has 5 layers"):
        try_conventions(model, what, what.find(place), blocks)


def test_activations_are_the_models(model, blocks):
    with capture(model, [SITE]) as seen:
        model(blocks)
    assert torch.equal(activations(model, blocks, {SITE})[SITE][:4], seen[SITE][:4])
