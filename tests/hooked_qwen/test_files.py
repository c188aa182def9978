"""Files are whole or absent, on systems too where an open file cannot be renamed."""

import os
import signal
import subprocess
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
    content_hash,
    write_atomically,
    write_text_atomically,
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
    write_text_atomically(path, text)


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


REPOSITORY = Path(__file__).parents[3]
KILLED = """
import os, signal, sys
from pathlib import Path
from hooked_qwen.files import build_folder_atomically, write_atomically

path = Path(sys.argv[2])

def build(partial):
    if sys.argv[1] == "folder":
        (partial / "half.txt").write_text("half")
    else:
        partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

(build_folder_atomically if sys.argv[1] == "folder" else write_atomically)(path, build)
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_process_killed_while_writing_leaves_the_old_or_nothing(tmp_path, kind, exists):
    path = tmp_path / "place" / "thing.json"

    def write(content):
        if kind == "folder":
            build_folder_atomically(path, lambda p: (p / "whole.txt").write_text(content))
        else:
            write_atomically(path, lambda p: p.write_text(content))

    def read():
        return (path / "whole.txt" if kind == "folder" else path).read_text()

    if exists:
        write("old")
    code = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)], cwd=REPOSITORY)
    assert code.returncode == -signal.SIGKILL
    if exists:
        assert read() == "old"
    assert path.exists() == exists
    # What the dead process left is hidden, and the next write sweeps it away.
    (left,) = (p.name for p in path.parent.iterdir() if p != path)
    assert left.startswith(".")
    write("new")
    assert read() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    other = tmp_path / f".partial-{os.getppid()}-thing"
    other.mkdir()
    build_folder_atomically(tmp_path / "thing", lambda partial: None)
    assert other.exists()


def test_a_process_with_the_number_of_a_dead_one_can_write(tmp_path):
    """In a container every run may well have the same process number."""
    (tmp_path / f".partial-{os.getpid()}-thing").mkdir()
    build_folder_atomically(tmp_path / "thing", lambda partial: None)
    assert (tmp_path / "thing").is_dir()


def test_the_old_folder_survives_a_rename_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "thing"
    build_folder_atomically(path, lambda partial: (partial / "a").write_text("old"))
    replace = Path.replace

    def fail_into_place(self, target):
        if target == path and "-old" not in self.name:
            raise OSError("input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_into_place)
    with pytest.raises(OSError, match="input/output error"):
        build_folder_atomically(path, lambda partial: (partial / "a").write_text("new"))
    assert (path / "a").read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_raises_leaves_nothing_beside_the_old(tmp_path, error):
    def fail(partial):
        (partial / "half.txt" if partial.is_dir() else partial).write_text("half")
        raise error

    (tmp_path / "file").write_text("old")
    for write, name in ((write_atomically, "file"), (build_folder_atomically, "folder")):
        with pytest.raises(error):
            write(tmp_path / name, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_is_written_has_the_permissions_of_any_other_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    (tmp_path / "folder").mkdir()
    write_atomically(tmp_path / "a.json", lambda path: path.write_text("x"))
    build_folder_atomically(tmp_path / "b", lambda path: None)
    modes = {name: (tmp_path / name).stat().st_mode for name in ("plain", "folder", "a.json", "b")}
    assert modes["a.json"] == modes["plain"]
    assert modes["b"] == modes["folder"]


def test_the_hash_is_of_names_and_contents(tmp_path):
    def made(name, **files):
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(content)
        return content_hash(tmp_path / name)

    one = made("one", a="x", b="y")
    assert made("two", b="y", a="x") == one
    assert made("two", **{".hidden": "z", ".partial-c/d": "z"}) == one
    assert len({one, made("three", a="y", b="x"), made("four", a="x"), made("five", a="xy")}) == 4
    assert len(one) == 16
