"""A suite says what was found, and reads no more than it is asked for."""

import pytest
import torch

from hooked_qwen.files import content_hash
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from saes.suite import Suite, find, load_suite, pinned
from tests.saes import published
from tests.saes.published import CASES, ONE_OF_EACH
from tests.toys import SIZES, random_dictionary, toy, toy_suite

NAMES = [f"{kind}.{layer}" for kind in ("attn_out", "resid_post") for layer in (0, 1, 2, 5)]


def spec(text):
    source, _, target = text.partition("-")
    return DictionarySpec(source=Site.parse(source), target=Site.parse(target or source), k=5)


def save(folder, *texts):
    for seed, text in enumerate(texts):
        made = random_dictionary(spec(text), seed=seed, dtype=torch.float32)
        ours.save_dictionary(made, folder / text, card=ours.Card())
    ours.save_suite_index(folder, list(texts))
    return folder


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "suite", *NAMES, "mlp_out.1", "mlp_in.1-mlp_out.1")


def break_weights(folder, *but):
    for path in folder.glob(f"*/{ours.TENSORS}"):
        if path.parent.name not in but:
            path.write_bytes(b"broken")


def test_only_what_is_asked_for_is_read(folder):
    break_weights(folder, "resid_post.5")
    suite = load_suite(folder)
    assert suite[Site("resid_post", 5)].spec.name == "resid_post.5"
    assert suite[Site("resid_post", 5)] is suite[Site("resid_post", 5)]
    assert len(suite) == len(NAMES) + 1
    assert list(suite) == [str(site) for site in sorted(map(Site.parse, suite))]
    assert Site("resid_post", 0) in suite
    assert Site("resid_post", 3) not in suite
    assert Site("mlp_in", 1) not in suite.reads
    assert suite.describe()["attn_out.0"]["hash"] == content_hash(folder / "attn_out.0")
    assert "resid_post 0-2,5" in suite.summary()
    with pytest.raises(ValueError, match=r"attn_out\.0/dictionary\.safetensors is not a readable"):
        suite[Site("attn_out", 0)]
    with pytest.raises(KeyError):
        suite[Site("resid_post", 3)]


def test_dictionaries_of_another_width_are_refused_unread(folder):
    path = folder / "attn_out.0" / ours.TENSORS
    weights = path.read_bytes()
    path.write_bytes(weights[:-64] + b"\xff" * 64)
    suite = load_suite(folder)
    suite.check_width(SIZES["hidden_size"])
    with pytest.raises(ValueError, match="but the model is 96 wide"):
        suite.check_width(96)
    with pytest.raises(ValueError, match="not finite"):
        suite["attn_out.0"]
    with pytest.raises(ValueError, match=r"mlp_out.0 has width .* 96 wide: it is another model's"):
        toy_suite("mlp_out.0").check_width(96)


def test_a_summary_says_what_was_found_in_one_line(folder):
    sites = "attn_out 0-2,5, resid_post 0-2,5, mlp_in-mlp_out 1"
    line = load_suite(folder, mlp="transcoder").summary()
    assert line == f"9 dictionaries (ours) at {folder}: {sites}"


def test_a_suite_in_memory_says_so():
    made = toy_suite("embed", "mlp_in.1-mlp_out.1")
    assert made.layout == "memory"
    assert made.summary() == "2 dictionaries (memory): embed, mlp_in-mlp_out 1"
    assert made.describe() == {}
    assert made.reads == [Site("embed"), Site("mlp_in", 1)]
    assert Suite({}, {}).summary() == "0 dictionaries (memory): "


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_suite_names_its_layout_and_hashes_its_files(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    suite = load_suite(folder)
    assert suite.layout == CASES[name].layout
    source, target = CASES[name].sites()
    before = suite.describe()
    assert list(before) == [str(target)]
    assert before[str(target)]["source"] == str(source)
    assert suite.describe() == load_suite(folder).describe()
    file = folder / CASES[name].weights
    file.write_bytes(file.read_bytes() + b" ")
    assert load_suite(folder).describe()[str(target)]["hash"] != before[str(target)]["hash"]


def test_a_place_is_pinned(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert pinned("suite") == str(folder)
    assert pinned("bundled").endswith("dictionaries")
    assert find("bundled").layout.name == "ours"


def test_a_suite_keeps_what_fits_in_its_memory_and_reads_the_rest_again(folder):
    one = sum(b.numel() * 4 for b in load_suite(folder)["attn_out.0"].buffers())
    suite = load_suite(folder, memory=2.5 * one / 1e9)
    first = suite["attn_out.0"]
    assert suite["attn_out.1"] is not first
    assert suite["attn_out.0"] is first, "two fit"
    again = suite["attn_out.2"]
    assert suite["attn_out.0"] is first, "asked for after attn_out.1"
    assert suite["attn_out.2"] is again
    kept = suite["attn_out.1"]
    assert suite["attn_out.1"] is kept
    read_again = suite["attn_out.0"]
    assert read_again is not first
    assert torch.equal(read_again.W_enc, first.W_enc)
    tiny = load_suite(folder, memory=1e-9)
    assert tiny["attn_out.0"] is tiny["attn_out.0"], "the one in use stays, whatever it takes"


@pytest.mark.parametrize("memory", [None, 1.0])
def test_the_dictionaries_of_some_sites_share_what_is_read(folder, memory):
    break_weights(folder, "resid_post.5", "attn_out.1")
    suite = load_suite(folder, memory=memory)
    known = suite["attn_out.1"]
    some = suite.at([Site("resid_post", 5), Site("attn_out", 1), Site("embed")])
    assert list(some) == ["attn_out.1", "resid_post.5"] == list(some.files)
    assert some["attn_out.1"] is known
    assert suite["resid_post.5"] is some["resid_post.5"]
    with pytest.raises(KeyError, match=r"those that are there write attn_out.1, resid_post.5'"):
        some["attn_out.0"]
    assert len(suite.at([])) == 0 < len(some) < len(suite)


def test_a_suite_comes_to_the_device_of_the_model(folder, pretend):
    suite = load_suite(folder)
    moved = suite.fitting(toy(dtype=torch.float32).to("pretend"))
    assert moved["resid_post.1"].W_dec.device.type == "pretend"
    assert moved["resid_post.1"] is moved["resid_post.1"]
    assert suite["resid_post.1"].W_dec.is_cpu
    assert torch.equal(moved["resid_post.1"].W_dec.cpu(), suite["resid_post.1"].W_dec)
