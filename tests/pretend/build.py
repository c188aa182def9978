"""Compile the pretend device once for this Python and this torch, outside the repository."""

import os
import shutil
import subprocess
import sysconfig
from hashlib import sha256
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).with_name("device.cpp")
MODULE = "pretend_device"


class CannotBuild(RuntimeError):
    """What is missing to compile a C++ extension of torch."""


def build() -> Any:
    """The compiled module; a few tens of seconds the first time, then from the cache.

    Raises `CannotBuild` where there is no C++ compiler, or no headers of Python.
    """
    versions = (torch.__version__, sysconfig.get_config_var("SOABI"))
    key = sha256(repr((SOURCE.read_text(), versions)).encode()).hexdigest()[:16]
    folder = user_cache_path("qwen-circuits") / "pretend_device"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{key}.so"
    with FileLock(library.with_suffix(".lock")):  # two test workers want one build
        if not library.exists():
            _compile(library)
    loader = ExtensionFileLoader(MODULE, str(library))
    spec = spec_from_loader(MODULE, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _compile(library: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise CannotBuild("no C++ compiler: install g++ or clang++, or name one in CXX")
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").exists():
        raise CannotBuild(f"no Python.h in {headers}: install Python's development headers")
    partial = library.with_suffix(".partial")
    options = ["-std=c++20", "-O1", "-g0", "-w", "-shared", "-fPIC"]
    options += [f"-DTORCH_EXTENSION_NAME={MODULE}", str(SOURCE), "-o", str(partial)]
    for path in (*include_paths("cpu"), headers):
        options += ["-isystem", path]
    for path in library_paths("cpu"):
        options += [f"-L{path}", f"-Wl,-rpath,{path}"]
    options += [f"-l{name}" for name in ("c10", "torch", "torch_cpu", "torch_python")]
    done = subprocess.run([compiler, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the pretend device does not compile:\n{done.stderr[:4000]}")
    partial.replace(library)
