"""A wheel holds what the packages need, and building it warns of nothing."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits")


def test_a_wheel_holds_every_file_and_its_building_is_quiet(tmp_path):
    pytest.importorskip("setuptools")
    project = tmp_path / "project"
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, project / name, ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    # Both ways of installing; what pip shows of it are warnings.
    for way, folder in (("build_editable", "editable"), ("build_wheel", "dist")):
        build = f"from setuptools import build_meta; build_meta.{way}('{folder}')"
        command = [sys.executable, "-W", "error::UserWarning", "-c", build]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "absent from the `packages` configuration" not in done.stdout + done.stderr
        assert "!!" not in done.stderr
    (wheel,) = (project / "dist").glob("*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith(PACKAGES)}
    files = (path for name in PACKAGES for path in (project / name).rglob("*") if path.is_file())
    assert held == {path.relative_to(project).as_posix() for path in files}


def test_every_folder_with_code_is_a_listed_package():
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
    }
    assert set(listed) == found


NAMED = re.compile(r"\s*[A-Z]{3,}/([a-z][\w/-]*\.[a-z]+)\s{2,}")


def test_docstrings_name_files_that_exist():
    """Lines such as `OUT/training.jsonl   one line`: the package has code with that name."""
    found = []
    for name in PACKAGES[:3]:
        codes = {p: p.read_text(encoding="utf-8") for p in (ROOT / name).rglob("*.py")}
        package = "".join(codes.values())
        for path, code in codes.items():
            docstring = ast.get_docstring(ast.parse(code)) or ""
            named = {n[1] for n in map(NAMED.match, docstring.splitlines()) if n}
            found += [
                (path.name, file, f'"{file.partition("00000")[0]}' in package) for file in named
            ]
    assert ("run.py", "training.jsonl", True) in found
    assert [(module, file) for module, file, is_written in found if not is_written] == []
