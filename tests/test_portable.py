"""The packages can be imported and run on Windows and macOS, as far as Linux can tell."""

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from circuits.runs import stopwatch

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("hooked_qwen", "saes", "transcoders", "circuits", "experiments", "benchmarks")
FILES = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]
UNIX_ONLY = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# os.kill(pid, 0), which asks on Unix whether a process lives, ends it on Windows.
UNIX_CALLS = {"fork", "getuid", "kill", "killpg", "mkfifo", "sched_getaffinity", "uname"}


def imported_at_once(tree):
    """Modules that are imported when the file is, not when a function runs."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def calls_of_os(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os":
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names)


def test_no_module_of_unix_alone_is_needed():
    assert FILES
    named = re.compile(rf"\b({'|'.join(UNIX_ONLY | UNIX_CALLS)})\b")
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if not named.search(text):
            continue
        tree = ast.parse(text)
        assert not UNIX_ONLY & set(imported_at_once(tree)), path
        assert not UNIX_CALLS & set(calls_of_os(tree)), path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os, resource", {"os", "resource"}),
        ("try:\n    from fcntl import flock\nexcept ImportError:\n    pass", {"fcntl"}),
        ("def f():\n    import resource", set()),
        ("class A:\n    import pwd", {"pwd"}),
    ],
)
def test_what_counts_as_an_import(source, found):
    assert set(imported_at_once(ast.parse(source))) == found


def test_peak_memory_is_at_least_what_is_held(monkeypatch):
    held = psutil.Process().memory_info().rss
    assert held * 0.5 < stopwatch.peak_memory() < 2**45
    of_windows = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123))
    monkeypatch.setattr(psutil, "Process", lambda: of_windows)
    monkeypatch.setattr(sys, "platform", "win32")
    assert stopwatch.peak_memory() == 123
