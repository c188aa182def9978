"""Files are whole or absent, on systems too where an open file cannot be renamed."""

import sys
from pathlib import Path

import pytest

from hooked_qwen import files
from hooked_qwen.files import build_folder_atomically, write_atomically


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
    monkeypatch.setattr(files, "WAITS", (0.0, 0.0, 0.0))
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
