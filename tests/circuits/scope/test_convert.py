"""`circuits convert --map`: home-made files become a suite that says how good it is."""

import json
import warnings
from shutil import copytree

import pytest
import torch
import yaml

from circuits import scope
from hooked_qwen.load import load
from hooked_qwen.notices import Notice
from hooked_qwen.sites import Site
from hooked_qwen.texts import texts_of
from saes.evaluation.convention_files import Here, mean_norm
from saes.evaluation.metrics import held_out_blocks
from saes.evaluation.try_conventions import activations
from saes.suite import load_suite
from tests.circuits.conftest import call

MAP = {
    "files": "layer_{layer}.pt",
    "site": "resid_post.{layer}",
    "tensors": {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
    "k": 3,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The bundled dictionaries of two layers as somebody saved them: centred, a layer too late."""
    folder = tmp_path_factory.mktemp("home")
    suite = load_suite("bundled")
    for layer in (1, 2):
        w = suite[Site("resid_post", layer)].state_dict()
        w["b_enc"] = w["b_enc"] + w["W_enc"] @ w["b_dec"]
        torch.save(dict(w), folder / f"layer_{layer + 1}.pt")
    (folder / "map.yaml").write_text(yaml.safe_dump(MAP))
    return folder


JUDGED = ("--text", "bundled", "--model", "bundled", "--tokens", 768)


def test_what_fits_is_used_and_kept_as_a_map(home, tmp_path):
    done = call("convert", home, tmp_path / "out", "--map", home / "map.yaml", "--try", *JUDGED)
    assert done.exit_code == 0, done.output
    assert "the first fits" in done.output
    assert "resid_post.{layer-1}" in done.output
    found = load_suite(tmp_path / "out")
    assert list(found) == ["resid_post.1", "resid_post.2"]
    record = json.loads((tmp_path / "out/resid_post.1/dictionary.json").read_text())
    assert record["metrics"]["fvu"] < 0.25 < record["metrics"]["untrained_fvu"]
    assert len(record["model"]["hash"]) == 16
    # The map that was written gives the same without trying.
    done = call("convert", home, tmp_path / "again", "--map", tmp_path / "out/map.yaml")
    assert done.exit_code == 0, done.output
    for name, one in load_suite(tmp_path / "again").items():
        assert all(torch.equal(v, found[name].state_dict()[k]) for k, v in one.state_dict().items())
        own = load_suite("bundled")[name]
        torch.testing.assert_close(one.b_enc, own.b_enc, atol=1e-5, rtol=1e-5)
        assert torch.equal(one.W_enc, own.W_enc)


@pytest.mark.parametrize("mean", [False, True])
def test_a_scale_that_was_measured_is_a_number_in_the_map(tmp_path, mean):
    """Files trained on activations, or their distance to a mean, of mean norm sqrt(d)."""
    suite, model, home = load_suite("bundled"), load("bundled"), tmp_path / "home"
    home.mkdir()
    blocks = held_out_blocks(texts_of(["bundled"])(), model, tokens=768)
    for layer in (1, 2):
        site = Site("resid_post", layer)
        seen = activations(model, blocks, {site})[site]
        x = Here.of(seen, seen).x
        average = x.mean(0) if mean else torch.zeros(128)
        a, w = 128**0.5 / mean_norm(x - average), suite[site].state_dict()
        w["b_enc"] = w["b_enc"] + w["W_enc"] @ average
        w["b_dec"] = (w["b_dec"] - average) * a
        w |= {"W_enc": w["W_enc"] / a, "W_dec": w["W_dec"] * a, "average": average}
        torch.save(dict(w), home / f"layer_{layer}.pt")
    # A scale that the map itself says is not held back for being measured.
    told = MAP | ({"mean": "average", "scale": "sqrt(d)/mean norm"} if mean else {})
    (home / "map.yaml").write_text(yaml.safe_dump(told))
    judged = {"text": ["bundled"], "model": "bundled", "tokens": 768}
    tried = scope.convert(home, tmp_path / "tried", map=home / "map.yaml", try_all=True, **judged)
    assert tried["trial"]["tried"][0]["scale"] == "sqrt(d)/mean norm"
    written = tmp_path / "tried" / "map.yaml"
    assert "mean norm" not in written.read_text()
    # By numbers alone the same dictionaries, bit for bit, without text; and with it the same FVU.
    scope.convert(home, tmp_path / "plain", map=written)
    again = scope.convert(home, tmp_path / "again", map=written, **judged)
    assert again["dictionaries"] == tried["dictionaries"]
    assert again["map"] == tried["map"]
    fvus = [one["fvu"] for one in again["dictionaries"].values()]
    assert sum(fvus) / 2 == pytest.approx(tried["trial"]["tried"][0]["fvu"], rel=1e-4)
    for name, one in load_suite(tmp_path / "plain").items():
        theirs = load_suite(tmp_path / "tried")[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())
        torch.testing.assert_close(one.W_dec, suite[name].W_dec, atol=1e-4, rtol=1e-4)


def test_one_file_is_enough_and_an_fvu_over_one_is_told(home, tmp_path):
    wrong = MAP | {"files": "layer_3.pt", "site": "resid_post.4", "activation": "relu", "k": None}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.warns(Notice, match=r"FVU.* a convention of the map is wrong; --try looks for it"):
        record = scope.convert(
            home / "layer_3.pt",
            tmp_path / "out",
            map=tmp_path / "map.yaml",
            text=["bundled"],
            model="bundled",
            tokens=256,
        )
    assert record["dictionaries"]["resid_post.4"]["fvu"] > 1


def test_a_layer_off_is_told_where_the_fvu_alone_would_not_tell(home, tmp_path):
    judged = {"text": ["bundled"], "model": "bundled", "tokens": 512}
    for site, off in (("resid_post.{layer-1}", False), ("resid_post.{layer}", True)):
        file, out = tmp_path / f"{off}.yaml", tmp_path / str(off)
        told = MAP | {"site": site, "centre": "b_dec"}
        file.write_text(yaml.safe_dump(told))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            record = scope.convert(home, out, map=file, **judged)
        notes = [str(one.message) for one in caught if issubclass(one.category, Notice)]
        assert all(one["fvu"] < one["untrained_fvu"] for one in record["dictionaries"].values())
        assert len(notes) == 2 * off
        for layer, note in zip((1, 2), notes, strict=False):
            assert note.startswith(f"layer_{layer + 1}.pt leaves")
            assert f"of resid_post.{layer}: the site of the map is a layer off; --try" in note


def test_the_map_that_is_kept_is_of_these_files_alone(home, tmp_path, fails):
    copytree(home, tmp_path / "copy")
    scope.convert(home, tmp_path / "out", map=home / "map.yaml")
    kept = tmp_path / "out" / "map.yaml"
    scope.convert(tmp_path / "copy", tmp_path / "again", map=kept)
    assert (tmp_path / "again" / "map.yaml").read_text() == kept.read_text()
    torch.save(torch.load(home / "layer_3.pt"), tmp_path / "copy" / "layer_2.pt")
    said = fails("convert", tmp_path / "copy", tmp_path / "third", "--map", kept)
    assert "layer_2.pt of" in said
    assert "is not the file of the map: its SHA-256 is" in said
    assert not (tmp_path / "third").exists()


def test_what_does_not_fit_leaves_nothing(tmp_path, fails):
    torch.save(
        {"W_enc": torch.randn(64, 128), "W_dec": torch.randn(64, 128), "b_enc": torch.zeros(64)}
        | {"k": 3},
        tmp_path / "layer_2.pt",
    )
    said = fails("convert", tmp_path, tmp_path / "out", "--try", *JUDGED)
    assert "conventions fits" in said
    assert "an untrained dictionary of the same shape" in said
    assert not (tmp_path / "out").exists()


def test_a_map_keeps_the_hash_of_its_model_without_one(home, tmp_path):
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP | {"model": "0" * 16}))
    scope.convert(home, tmp_path / "out", map=tmp_path / "map.yaml")
    record = json.loads((tmp_path / "out/resid_post.2/dictionary.json").read_text())
    assert record["model"] == {"hash": "0" * 16}
    with pytest.warns(Notice, match=r"trained on another model, unnamed \(0{16}\), than"):
        load_suite(tmp_path / "out").notify_of_another_model(load("bundled"))


def test_another_model_is_told(home, tmp_path):
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP | {"model": "0" * 16}))
    with pytest.warns(Notice, match="the map is of another model"):
        scope.convert(
            home,
            tmp_path / "out",
            map=tmp_path / "map.yaml",
            text=["bundled"],
            model="bundled",
            tokens=128,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "got neither"),
        (("--to", "saelens", "--map", "m.yaml"), "got both"),
        (("--to", "saelens", "--text", "bundled"), "--to changes no number"),
        (("--map", "m.yaml", "--only", "sae"), "--only goes with --to"),
        (("--map", "m.yaml", "--text", "bundled"), "judging needs both --text and --model"),
        (("--try",), "conventions are tried on real text: give --text and --model"),
        (("--map", "absent.yaml"), "absent.yaml is missing"),
    ],
)
def test_options_that_do_not_go_together(home, tmp_path, fails, options, message):
    assert message in fails("convert", home, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_site_are_refused(home, tmp_path, fails):
    twice = MAP | {"site": "resid_post.2"}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(twice))
    said = fails("convert", home, tmp_path / "out", "--map", tmp_path / "map.yaml")
    assert "two files are resid_post.2" in said
