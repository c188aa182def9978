"""Folders of files: what is found in them, and hashes that go by names and contents."""

from hashlib import sha256

import pytest

from hooked_qwen.files import content_hash
from hooked_qwen.sites import Site
from saes.formats.place import DEPTH, entry_of, hashes, inside, local_place

SITE = Site("mlp_out", 1)


@pytest.fixture
def place(tmp_path):
    for name in ("a/w.pt", "a/c.json", "b/w.pt", "w.pt", "c.json", ".hidden/w.pt", "a/.w.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return local_place(tmp_path)


def test_hidden_files_do_not_count(place):
    assert place.names == ("a/c.json", "a/w.pt", "b/w.pt", "c.json", "w.pt")


def test_folders_that_hold_every_file_are_found(place):
    assert place.folders_with("w.pt") == ["a", "b", ""]
    assert place.folders_with("w.pt", "c.json") == ["a", ""]
    assert place.folders_with("gone") == []
    assert [place.name_of(folder) for folder in ("a", "")] == ["a", place.name]
    assert [inside(folder, "w.pt") for folder in ("a", "")] == ["a/w.pt", "w.pt"]


def test_folders_too_deep_are_not_searched(tmp_path):
    deep = tmp_path.joinpath(*map(str, range(DEPTH + 2)))
    deep.mkdir(parents=True)
    for above in (deep, *deep.parents[: DEPTH + 2]):
        (above / "w.pt").write_text("")
    assert max(name.count("/") for name in local_place(tmp_path).names) == DEPTH


def test_a_dictionary_is_hashed_by_the_names_and_contents_of_its_files(place, tmp_path):
    entries = [
        entry_of(place, (SITE, SITE), *files) for files in (("a/w.pt", "a/c.json"), ("b/w.pt",))
    ]
    (tmp_path / "a/.w.pt").unlink()
    assert hashes(entries) == [content_hash(tmp_path / folder) for folder in "ab"]
    assert place.sha256("a/w.pt") == sha256(b"a/w.pt").hexdigest()
    (tmp_path / "b/w.pt").write_text("changed")
    assert hashes(entries)[1] == content_hash(tmp_path / "b") != hashes(entries)[0]


def test_a_dictionary_without_a_name_is_called_after_its_weights(place):
    assert entry_of(place, (SITE, SITE), "b/w.pt").name == "b/w.pt"
    assert entry_of(place, (SITE, SITE), "b/w.pt", name="b").name == "b"
