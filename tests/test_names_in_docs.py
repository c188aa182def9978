"""Docstrings name modules that exist, and documents name tests that exist."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits")
SOURCES = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))]
NAME = rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+"
DOTTED = re.compile(rf"`({NAME})`|\(({NAME})\)")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = re.compile(r"`(tests/[\w/]*test_\w+\.py)?(?:::(\w+)(?:\[[^`]*\])?)?`|`(test_\w+\.py)`")
"A test file; a test of it, or of the file that was named last; a test file by its name alone."


def exists(name):
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        if found is not None:
            module = importlib.import_module(".".join(parts[:n]))
            for attribute in parts[n:]:
                if not hasattr(module, attribute):
                    return False
                module = getattr(module, attribute)
            return True
    return False


def test_every_module_that_is_named_exists():
    texts = {source: source.read_text(encoding="utf-8") for source in SOURCES}
    named = {(s.name, a or b) for s, text in texts.items() for a, b in DOTTED.findall(text)}
    assert len(named) > 10
    assert [(source, name) for source, name in sorted(named) if not exists(name)] == []


@cache
def functions_of(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def gone(text):
    """The tests and test files that a document names and that do not exist."""
    file = ""
    for named, test, alone in TESTS.findall(text):
        if alone and not any((ROOT / "tests").rglob(alone)):
            yield alone
        file = named or file
        if named and not (ROOT / file).is_file():
            yield file
        elif file and test and test not in functions_of(file):
            yield f"{file}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    assert list(gone(document.read_text(encoding="utf-8"))) == []


def test_a_test_that_is_gone_is_found():
    here = "`tests/test_names_in_docs.py::test_a_test_that_is_gone_is_found`"
    assert list(gone(f"`x::y`, {here}, `::exists`, `test_suite.py`, `::gone`, `z`")) == []
    assert list(gone(f"{here}, `::test_gone`, `test_no.py`, `tests/saes/test_no.py`")) == [
        "tests/test_names_in_docs.py::test_gone",
        "test_no.py",
        "tests/saes/test_no.py",
    ]
