"""What a folder is looked through for, and what is said where nothing is found."""

import pytest

from saes.formats.finding import folder_of
from saes.suite import find, load_suite
from tests.saes import published
from tests.saes.test_suite import save


def test_a_folder_that_is_no_suite(tmp_path):
    with pytest.raises(ValueError, match=r"holds no dictionaries: expected a suite\.json"):
        load_suite(tmp_path)
    with pytest.raises(ValueError, match=r"there are no dictionaries at .*nowhere: no such folder"):
        folder_of(tmp_path / "nowhere")


NAMES = [f"{kind}.{layer}" for kind in ("attn_out", "resid_post") for layer in (0, 1, 2, 5)]


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "suite", *NAMES, "mlp_out.1", "mlp_in.1-mlp_out.1")


def test_every_dictionary_is_found_also_those_that_a_suite_leaves_out(folder):
    found = find(folder)
    assert len(found.entries) == len(NAMES) + 2
    names = sorted(found.load(entry).spec.name for entry in found.entries)
    assert names == sorted([*NAMES, "mlp_out.1", "mlp_in.1-mlp_out.1"])


def test_what_is_nowhere(tmp_path):
    for source in (tmp_path / "no", "./no", "~/no/such", tmp_path / "a" / "b"):
        with pytest.raises(ValueError, match="there are no dictionaries at .*: no such folder"):
            load_suite(source)


def test_hidden_and_deep_files_are_not_searched(tmp_path):
    folder, _ = published.write("saelens", tmp_path)
    (folder / "one").rename(folder / ".one")
    with pytest.raises(ValueError, match="holds no dictionaries: .* files as published by qwen-sc"):
        load_suite(folder)
    deep = folder / "a/b/c/d/e/f/g"
    deep.mkdir(parents=True)
    (folder / ".one").rename(deep / "one")
    with pytest.raises(ValueError, match="holds no dictionaries"):
        load_suite(folder)
    assert len(load_suite(folder / "a/b/c")) == 1


def test_looking_at_a_large_folder_reads_none_of_it(tmp_path):
    folder, _ = published.write("circuit-tracer", tmp_path)
    for layer in range(4):
        (folder / f"layer_{layer}.safetensors").write_bytes(b"broken")
    assert len(load_suite(folder)) == 4
