"""Docstrings and comments name modules and files that exist."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits")
SOURCES = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))]
NAME = rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+"
DOTTED = re.compile(rf"`({NAME})`|\(({NAME})\)")


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
