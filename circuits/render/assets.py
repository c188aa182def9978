"""What every page is made with: templates that escape, and our own files to put inside them.

What came from a model or a user reaches the browser as JSON and is set as text, never as markup.
"""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

HERE = Path(__file__).parent


def templates() -> Environment:
    """Our templates; what they are given is escaped, and `embed` puts a record into a script."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["embed"] = embed
    return environment


def style(*names: str) -> Markup:
    """Our style sheets, as the content of one element."""
    return inlined("".join(map(_text, names)), end="</style")


def script(names: Sequence[str]) -> Markup:
    """Our scripts, in a scope of their own, as the content of one element.

    One whose name ends in `.mjs` is an ES module, so that node can test it alone: the others see
    what it exports and nothing else of it. It imports nothing.
    """
    own = "\n".join(_module(name) if name.endswith(".mjs") else _text(name) for name in names)
    return inlined(f'(() => {{\n"use strict";\n{own}\n}})();', end="</script")


def _module(name: str) -> str:
    """A module as the value of its exports, in a scope of its own."""
    text = _text(name)
    assert not re.search(r"^import\b", text, re.MULTILINE), f"{name} imports something"
    exports = ", ".join(re.findall(r"^export (?:const|function) (\w+)", text, re.MULTILINE))
    body = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f"const {{ {exports} }} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();"


def inlined(text: str, *, end: str) -> Markup:
    """Code that stands in an element, which no part of it may end."""
    assert end not in text.lower(), f"{end!r} in {text[:40]!r}... would end its own element"
    return Markup(text)


def embed(record: Any) -> Markup:
    """JSON that may stand inside a `<script>` element: no character there can end it."""
    text = record if isinstance(record, str) else to_json(record)
    return Markup(text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def compress(record: Any) -> str:
    """JSON, gzipped without a time stamp, in base64."""
    return packed(to_json(record).encode())


def packed(content: bytes) -> str:
    """Bytes, gzipped without a time stamp, in base64."""
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")


def to_json(record: Any) -> str:
    """Strict, compact ASCII JSON; NumPy and torch scalars and arrays count as plain values."""
    return json.dumps(record, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"a page holds numbers, text, lists and dicts, got {type(value).__name__}: {value!r}"
    )


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
