"""What every page is made with: templates that escape, and our own files to put inside them.

Files are named by their paths from this folder: `dom.mjs`, `circuit/store.mjs`.

What came from a model or a user reaches the browser as JSON and is set as text, never as markup.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from posixpath import dirname, join, normpath
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


def html(
    template: str, *, scripts: Sequence[str], sheets: Sequence[str] = (), **context: Any
) -> str:
    """A page from one of our templates, its style sheets and scripts inside it."""
    styles = [style("page.css", "heading.css", "feature/feature.css", *sheets)]
    page = templates().get_template(template)
    return page.render(styles=styles, script=script(scripts), **context)


def style(*names: str) -> Markup:
    """Our style sheets, as the content of one element."""
    return inlined("".join(map(_text, names)), end="</style")


def script(names: Sequence[str], folder: Path = HERE) -> Markup:
    """Our ES modules, in a scope of their own and in this order, as the content of one element.

    One that imports nothing keeps to itself what it does not export; the others share the scope.

    Raises `ValueError` where a module imports what none of `names` exports, and where two have one
    name for something in the scope that they share.
    """
    return _script(tuple(names), folder)


@cache
def _script(names: tuple[str, ...], folder: Path) -> Markup:
    modules = {name: _text(name, folder) for name in names}
    for name, text in modules.items():
        _check_imports(name, text, modules)
    _check_names(modules)
    own = "\n".join(map(_bundled, modules.values()))
    return inlined(f'(() => {{\n"use strict";\n{own}\n}})();', end="</script")


IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[\w./]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(const|let|(?:async )?function\*?) ([\w$]+))", re.MULTILINE)
DECLARED = re.compile(
    r"^(?:export )?(const|let|class|(?:async )?function\*?) ([\w$]+)", re.MULTILINE
)


def imported(name: str, source: str) -> str:
    """What a module imports from `source`, which is a path from where the module stands."""
    return normpath(join(dirname(name), source))


def _check_imports(name: str, text: str, modules: Mapping[str, str]) -> None:
    for names, written in IMPORT.findall(text):
        source = imported(name, written)
        exported = {export for _, export in EXPORT.findall(modules.get(source, ""))}
        if lacking := set(re.findall(r"[\w$]+", names)) - exported:
            raise ValueError(
                f"{name} imports {', '.join(sorted(lacking))} from {source}, which "
                + ("does not export it" if source in modules else "is not on this page")
            )


def _check_names(modules: Mapping[str, str]) -> None:
    known: dict[str, str] = {}
    for name, text in modules.items():
        found = EXPORT.findall(text) if _keeps_to_itself(text) else DECLARED.findall(text)
        for _, declared in found:
            if (other := known.setdefault(declared, name)) != name:
                raise ValueError(f"{other} and {name}, which share a scope, both have {declared}")


def _keeps_to_itself(text: str) -> bool:
    """Whether a module has a scope of its own on a page.

    What is set anew after it was exported has to be in the scope of those that read it.
    """
    return not IMPORT.search(text) and all(kind != "let" for kind, _ in EXPORT.findall(text))


def _bundled(text: str) -> str:
    """A module without the words that need a loader; in a scope of its own where that can be."""
    exports, body = EXPORT.findall(text), EXPORT.sub("", IMPORT.sub("", text))
    if not _keeps_to_itself(text):
        return body
    names = ", ".join(name for _, name in exports)
    return f"const {{ {names} }} = (() => {{\n{body}\nreturn {{ {names} }};\n}})();"


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
def _text(name: str, folder: Path = HERE) -> str:
    return (folder / name).read_text(encoding="utf-8")
