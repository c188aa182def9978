"""Dictionaries written for other libraries: read again they are the same, or it is refused."""

import json

import pytest
import torch
import yaml

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats import ours
from saes.formats.convert import convert
from saes.suite import find, load_suite
from tests.saes import published
from tests.toys import random_dictionary

SKIPPED = "mlp_in.{0}-mlp_out.{0}"


def made(text, architecture="jumprelu", seed=0, width=20, **options):
    source, _, target = text.partition("-")
    k = 5 if architecture == "topk" else None
    signed = options.pop("signed", False)
    spec = DictionarySpec(
        source=Site.parse(source),
        target=Site.parse(target or source),
        architecture=architecture,
        k=k,
        **options,
    )
    one = random_dictionary(spec, seed=seed, width=width, dtype=torch.float32)
    spec = DictionarySpec(**(vars(spec) | {"signed": signed}))
    return SparseDictionary(spec, dict(one.state_dict()))


def save(folder, *dictionaries):
    ours.save(dictionaries, folder)
    return folder


def read(folder):
    found = find(folder)
    loaded = [found.load(entry) for entry in found.entries]
    return found.layout.name, {one.spec.name: one for one in loaded}


def assert_same(one, other, *, rounded=()):
    assert (one.source, one.target, one.spec.skip) == (other.source, other.target, other.spec.skip)
    weights = other.state_dict()
    assert one.state_dict().keys() == weights.keys()
    for name, value in one.state_dict().items():
        if name in rounded:
            torch.testing.assert_close(value, weights[name], atol=2e-6, rtol=1e-6)
        else:
            assert torch.equal(value, weights[name])


EXACT = {
    "saelens": [
        made("mlp_out.1", "topk"),
        made("resid_post.0", "relu"),
        made("attn_out.2", "gated"),
        made("resid_pre.1", "batch-topk", skip=True),
        made(SKIPPED.format(0), "relu"),
        made(SKIPPED.format(1), "relu", skip=True),
        made(SKIPPED.format(2), "matryoshka"),
        made(SKIPPED.format(3), skip=True),
    ],
    "circuit-tracer": [made(SKIPPED.format(layer), skip=True) for layer in range(3)],
    "sparsify": [
        made(SKIPPED.format(0), "topk"),
        made(SKIPPED.format(1), "topk", skip=True),
        made("resid_pre.2-resid_post.2", "topk"),
    ],
    "ours": [made("mlp_out.1", "topk", signed=True), made("mlp_out.0", "gated", skip=True)],
}


@pytest.mark.parametrize("to", EXACT)
def test_what_is_written_is_read_back_exactly(tmp_path, to):
    members = {one.spec.name: one for one in EXACT[to]}
    convert(save(tmp_path / "a", *members.values()), tmp_path / "b", to)
    layout, loaded = read(tmp_path / "b")
    assert layout == to
    assert loaded.keys() == members.keys()
    for name, one in members.items():
        assert_same(loaded[name], one)
        x = torch.randn(8, 24)
        assert torch.equal(loaded[name](x), one(x))


def test_sparsify_s_centring_is_put_back(tmp_path):
    sites = ("embed", "attn_out.1", "mlp_out.1", "resid_post.2")
    members = {site: made(site, "topk", skip=site == "mlp_out.1") for site in sites}
    convert(save(tmp_path / "a", *members.values()), tmp_path / "b", "sparsify")
    layout, loaded = read(tmp_path / "b")
    assert layout == "sparsify"
    assert loaded.keys() == members.keys()
    for name, one in members.items():
        assert_same(loaded[name], one, rounded=("b_enc",))


def test_thresholds_below_zero_do_in_circuit_tracer_what_they_do_here(tmp_path):
    one = made(SKIPPED.format(0))
    one.threshold -= 1
    convert(save(tmp_path / "a", one), tmp_path / "b", "circuit-tracer")
    (loaded,) = load_suite(tmp_path / "b").values()
    x = torch.randn(8, 24)
    assert torch.equal(loaded.encode(x).dense(), one.encode(x).dense())


def test_the_files_are_what_the_libraries_expect(tmp_path):
    convert(save(tmp_path / "a", made(SKIPPED.format(0))), tmp_path / "c", "circuit-tracer")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "config.yaml",
        "layer_0.safetensors",
    ]
    assert yaml.safe_load((tmp_path / "c/config.yaml").read_text()) == {
        "model_kind": "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
    }
    convert(save(tmp_path / "d", made("mlp_out.3", "topk")), tmp_path / "s", "saelens")
    config = json.loads((tmp_path / "s/mlp_out.3/cfg.json").read_text())
    assert config["architecture"] == "topk"
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert config["metadata"]["hook_name"] == "blocks.3.hook_mlp_out"
    convert(tmp_path / "d", tmp_path / "p", "sparsify")
    assert (tmp_path / "p/layers.3.mlp/sae.safetensors").is_file()


@pytest.mark.parametrize(
    ("to", "members", "match"),
    [
        ("saelens", [made(SKIPPED.format(0), "topk")], "no layout for a TopK dictionary that is"),
        ("saelens", [made("mlp_out.0", "topk", skip=True)], "that is no plain autoencoder"),
        ("saelens", [made("mlp_out.0", "topk", signed=True)], "keeps negative features"),
        ("sparsify", [made("mlp_out.0")], r"TopK dictionaries only: mlp_out\.0 has jumprelu"),
        ("sparsify", [made("mlp_out.0", "topk", signed=True)], "has negative features"),
        ("sparsify", [made("mlp_in.0", "topk")], "not the output of one"),
        ("sparsify", [made("resid_pre.0-mlp_out.0", "topk")], "not the output of one"),
        ("sparsify", [made("attn_out.0-mlp_out.0", "topk")], "not the output of one"),
        (
            "sparsify",
            [made("mlp_out.0", "topk"), made(SKIPPED.format(0), "topk")],
            r"two dictionaries would be written to sae\.safetensors in layers\.0\.mlp",
        ),
        ("circuit-tracer", [made(SKIPPED.format(0), "topk")], "reads no TopK"),
        ("circuit-tracer", [made(SKIPPED.format(1))], r"every layer from 0 on.*\[1\]"),
        (
            "circuit-tracer",
            [made(SKIPPED.format(0)), made(SKIPPED.format(1), width=21)],
            "2 kinds",
        ),
        (
            "circuit-tracer",
            [made(SKIPPED.format(0)), made("resid_pre.1-mlp_out.1")],
            "2 kinds",
        ),
        ("circuit-tracer", [made("mlp_in.0-mlp_out.1")], "one layer in a file"),
        ("circuit-tracer", [made("embed")], "one layer in a file"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_and_nothing_is_left(tmp_path, to, members, match):
    folder = save(tmp_path / "a", *members)
    with pytest.raises(ValueError, match=match):
        convert(folder, tmp_path / "out", to)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_widths_have_no_place_in_sparsify(tmp_path):
    one = made(SKIPPED.format(0), "topk")
    weights = dict(one.state_dict()) | {"W_dec": torch.randn(20, 7), "b_dec": torch.randn(7)}
    folder = save(tmp_path / "a", SparseDictionary(one.spec, weights))
    with pytest.raises(ValueError, match="one width for both sites"):
        convert(folder, tmp_path / "out", "sparsify")


def test_one_kind_of_dictionary_is_kept(tmp_path):
    both = [made("mlp_out.0", "topk"), made(SKIPPED.format(0), "topk")]
    folder = save(tmp_path / "a", *both)
    assert convert(folder, tmp_path / "saes", "saelens", only="sae") == ["mlp_out.0"]
    assert list(read(tmp_path / "saes")[1]) == ["mlp_out.0"]
    assert convert(folder, tmp_path / "b", "sparsify", only="transcoder") == [SKIPPED.format(0)]
    assert list(read(tmp_path / "b")[1]) == [SKIPPED.format(0)]


def test_nothing_to_write_is_refused(tmp_path):
    folder = save(tmp_path / "a", made("mlp_out.0"))
    with pytest.raises(ValueError, match="holds no transcoder"):
        convert(folder, tmp_path / "out", "circuit-tracer", only="transcoder")
    with pytest.raises(ValueError, match="holds no dictionary"):
        convert(save(tmp_path / "b"), tmp_path / "out", "saelens")


@pytest.mark.parametrize("to", ["gemma-scope", "Saelens", ""])
def test_a_layout_that_is_not_written(tmp_path, to):
    with pytest.raises(ValueError, match="is written: expected one of ours, saelens, sparsify"):
        convert(tmp_path, tmp_path / "out", to)


def test_what_is_there_is_not_overwritten(tmp_path):
    folder = save(tmp_path / "a", made("mlp_out.0"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("kept")
    with pytest.raises(ValueError, match="is there already: name a new folder"):
        convert(folder, tmp_path / "out", "saelens")
    assert (tmp_path / "out/precious").read_text() == "kept"
    with pytest.raises(ValueError, match="is there already"):
        convert(folder, tmp_path / "out/precious", "saelens")


def test_published_dictionaries_become_ours(tmp_path):
    folder, oracle = published.write("qwen-scope", tmp_path)
    assert convert(folder, tmp_path / "out", "ours") == ["layer1.sae.pt"]
    (one,) = load_suite(tmp_path / "out").values()
    x = torch.randn(16, 24)
    torch.testing.assert_close(one.encode(x).dense(), oracle(x)[0], atol=1e-5, rtol=1e-5)
    assert one.spec.signed


def test_two_of_one_name_do_not_become_one_of_ours(tmp_path):
    folder, _ = published.write("saelens", tmp_path)
    (folder / "one").rename(folder / "two")
    published.CASES["saelens"].write(folder)
    with pytest.raises(ValueError, match=r"two dictionaries are mlp_out\.1"):
        convert(folder, tmp_path / "out", "ours")
