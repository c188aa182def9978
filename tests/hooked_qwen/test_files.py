"""Files are whole or absent, on systems too where an open file cannot be renamed."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hooked_qwen.files import (
    build_folder_atomically,
    check_new_folder,
    check_not_file,
    write_atomically,
)


@pytest.fixture
def busy(monkeypatch):
    """A rename that fails as often as is asked, as on Windows while another process looks."""
    left = {"times": 0}
    rename = Path.replace

    def replace(self, target):
        if left["times"]:
            left["times"] -= 1
            raise PermissionError("used by another process")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return lambda times: left.update(times=times)


def write(path, text="new"):
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def test_a_file_that_is_looked_at_is_replaced_on_windows_once_it_is_free(
    tmp_path, monkeypatch, busy
):
    monkeypatch.setattr(sys, "platform", "win32")
    write(tmp_path / "a.txt", "old")
    busy(2)
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    busy(2)
    build_folder_atomically(tmp_path / "folder", lambda partial: write(partial / "b.txt"))
    assert (tmp_path / "folder/b.txt").exists()


@pytest.mark.parametrize(("platform", "times"), [("win32", 4), ("linux", 1)])
def test_a_file_that_stays_busy_is_an_error_and_nothing_is_lost(
    tmp_path, monkeypatch, busy, platform, times
):
    monkeypatch.setattr(sys, "platform", platform)
    write(tmp_path / "a.txt", "old")
    busy(times)
    with pytest.raises(PermissionError):
        write(tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_who_may_read_a_file_made_here_may_read_tensors_too(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        tensors = {"a": torch.zeros(3)}
        write_atomically(tmp_path / "one.safetensors", lambda partial: save_file(tensors, partial))
        build_folder_atomically(
            tmp_path / "folder", lambda partial: save_file(tensors, partial / "two.safetensors")
        )
    finally:
        os.umask(before)
    usual = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "one.safetensors").stat().st_mode == usual
    assert (tmp_path / "folder" / "two.safetensors").stat().st_mode == usual
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "one.safetensors", "plain"]


def test_what_stands_at_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for free in (tmp_path / "absent", tmp_path):
        check_not_file(free)
    with pytest.raises(ValueError, match="file is a file: give a folder"):
        check_not_file(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    for free in (tmp_path / "absent", tmp_path / "empty"):
        check_new_folder(free)
    for taken in (tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match="is there already: name a new folder"):
            check_new_folder(taken)
