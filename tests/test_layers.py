"""Importing the packages does nothing, and the packages imported are this repository's."""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits")

# Runs in a fresh interpreter: imports every module of a package under an audit hook.
IMPORT_ALL = """
import atexit, gc, json, os, sys
# What is imported stays, and is not taken apart in the end; what is to be done then is done.
gc.disable()
from importlib import import_module
from pkgutil import walk_packages

events = []

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        events.append(f"{event} {args[1:]}")
    elif event == "open":
        path, mode, flags = args
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and str(path) != os.devnull:
            events.append(f"open {path}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.system", "subprocess.Popen"):
        events.append(f"{event} {args[0]}")

sys.addaudithook(watch)
modules, packages = [], {}
for name in sys.argv[1:]:
    package = import_module(name)
    modules.append(name)
    for info in walk_packages(package.__path__, name + "."):
        if not info.name.endswith("__main__"):
            import_module(info.name)
            modules.append(info.name)
    packages[name] = sorted({module.partition(".")[0] for module in sys.modules})

import logging
import torch

print("REPORT" + json.dumps({
    "modules": modules,
    "packages": packages,
    "events": events,
    "cuda": torch.cuda.is_initialized(),
    "handlers": [str(handler) for handler in logging.getLogger().handlers],
}), flush=True)
atexit._run_exitfuncs()
os._exit(0)
"""


@pytest.fixture(scope="module")
def imported():
    """Standard output, standard error, and what the audit hook saw."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, *PACKAGES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, _, report = done.stdout.partition("REPORT")
    return printed, done.stderr, json.loads(report)


def test_every_module_is_imported(imported):
    modules = set(imported[2]["modules"])
    for package in PACKAGES:
        files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*.py")]
        names = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
        assert {name for name in names if not name.endswith("__main__")} <= modules


def test_a_package_brings_none_of_those_that_are_built_on_it(imported):
    """An SAE is trained without anything of `circuits`, say."""
    for n, package in enumerate(PACKAGES, 1):
        there = imported[2]["packages"][package]
        assert package in there
        assert not {*PACKAGES[n:]} & {*there}


def test_importing_prints_nothing(imported):
    printed, errors, _ = imported
    assert printed == ""
    assert errors == ""


def test_importing_opens_no_socket_and_writes_no_file(imported):
    # Matplotlib makes folders of its own, torch one among the temporary files; urllib3, which the
    # libraries of fine-tuning import, asks on the loopback whether there is IPv6.
    theirs = ("matplotlib", tempfile.gettempdir(), "socket.bind (('::1', 0),)")
    assert [e for e in imported[2]["events"] if not any(name in e for name in theirs)] == []


def test_importing_probes_no_device_and_sets_up_no_logging(imported):
    assert not imported[2]["cuda"]
    assert imported[2]["handlers"] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_this_repositorys(package):
    """PyPI has another package called `circuits`; installed beside ours it would hide it."""
    assert Path(importlib.import_module(package).__file__).parents[1] == REPOSITORY
