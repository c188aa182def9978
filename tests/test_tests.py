"""Tests go through public names and can fail: each asserts something, none replaces what is ours.

A test that replaces a function holds how things are done, and goes on passing where nobody calls
that function any more. The world outside may be replaced: the clock, the network, a terminal. Sizes
of ours are set by `small_chunks` (`tests/limits.py`), rows of tables by `monkeypatch.setitem`.
"""

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits", "benchmarks", "experiments")
NOTHING = object()
ALLOWED = {
    "tests/limits.py": "sets sizes, and says of what it sets that it is one",
    "tests/circuits/conftest.py": "the bundled model is loaded once for all commands, for time",
    "tests/circuits/test_memory.py": "calls are noted and go through: what is in memory when the "
    "next is made is no output",
}
"Files that set a function of ours after all, each with its reason."
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_")


@cache
def private_names() -> frozenset[str]:
    """Every private name that our packages define."""
    found = set()
    for package in PACKAGES[:4]:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                        found.add(name)
                    case (
                        ast.Name(id=name, ctx=ast.Store())
                        | ast.Attribute(attr=name, ctx=ast.Store())
                    ):
                        found.add(name)
    return frozenset(filter(is_private, found))


def imported(tree: ast.Module) -> dict[str, str]:
    """What of ours each name of a file stands for: `hooked_qwen.load`, `circuits.demo.TOP`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if is_ours(alias.name):
                    name = alias.asname or alias.name.partition(".")[0]
                    found[name] = alias.name if alias.asname else name
    return found


def is_ours(dotted: str) -> bool:
    return dotted.partition(".")[0] in PACKAGES


def found_at(dotted: str) -> object:
    """What a dotted name stands for; `NOTHING` where it is not there."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for part in parts[n:]:
            found = getattr(found, part, NOTHING)
        return found
    return NOTHING


def violations(tree: ast.Module) -> Iterator[str]:
    """What a test file replaces or reads that it should not, with the line."""
    ours = imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[target, *rest]):
                if (dotted := replaced(target, rest, ours)) is not None:
                    yield f"line {node.lineno} sets {dotted}"
            case ast.ImportFrom(module=str(module), names=names) if is_ours(module):
                for alias in names:
                    if is_private(alias.name):
                        yield f"line {node.lineno} imports {module}.{alias.name}"
            case ast.Attribute(value=value, attr=name) if name in private_names():
                if not (isinstance(value, ast.Name) and value.id == "self"):
                    yield f"line {node.lineno} reads {ast.unparse(node)}"


def replaced(target: ast.expr, rest: list[ast.expr], ours: dict[str, str]) -> str | None:
    """Which name of ours `setattr` replaces, None where it is somebody else's."""
    if isinstance(target, ast.JoinedStr):
        return ast.unparse(target)
    if isinstance(target, ast.Constant):
        dotted = str(target.value)
    else:
        root, dot, attributes = ast.unparse(target).partition(".")
        name = rest[0].value if rest and isinstance(rest[0], ast.Constant) else "?"
        dotted = f"{ours.get(root, '')}{dot}{attributes}.{name}"
    if not is_ours(dotted):
        return None
    found = found_at(dotted)
    module = getattr(found, "__module__", None)
    # A name that our module imports from elsewhere is of the world outside.
    return None if isinstance(module, str) and not is_ours(module) else dotted


def test_tests_go_through_public_names():
    found = {name: told for name in FILES if (told := list(violations(tree_of(name))))}
    assert found.keys() >= ALLOWED.keys(), "what sets nothing of ours any more is not in ALLOWED"
    for name in ALLOWED:
        found[name] = [one for one in found[name] if " sets " not in one]
    assert {name: told for name, told in found.items() if told} == {}


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


SUITE = "from saes import suite\n"
CONSOLE = "from circuits.cli.tables import console\n"
INK = "from circuits.render.figure import ink\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (SUITE + "m.setattr(suite, 'load_suite', None)", "sets saes.suite.load_suite"),
        (SUITE + "m.setattr(suite.Suite, '__iter__', None)", "sets saes.suite.Suite.__iter__"),
        (CONSOLE + "m.setattr(console, 'quiet', True)", "sets circuits.cli.tables.console.quiet"),
        ("m.setattr('saes.training.log.LOG_EVERY', 4)", "sets saes.training.log.LOG_EVERY"),
        ("m.setattr(f'{where}.{name}', None)", "sets f'{where}.{name}'"),
        ("from circuits.render.words import _text", "imports circuits.render.words._text"),
        ("suite._memory = 3", "reads suite._memory"),
        ("import time\nm.setattr(time, 'sleep', None)", None),
        (INK + "m.setattr(ink.font_manager, 'findfont', None)", None),
        ("self._memory = node._replace(feature=3)", None),
    ],
)
def test_what_is_replaced_or_private_is_found(source, found):
    told = list(violations(ast.parse(source)))
    assert (len(told) == 1 and found in told[0]) if found else not told


def test_only_sizes_are_set(small_chunks):
    small_chunks("saes.training.log.LOG_EVERY", 4)
    assert import_module("saes.training.log").LOG_EVERY == 4
    for name in ("saes.suite.load_suite", "circuits.render.words.ROWS"):
        with pytest.raises(ValueError, match="expected a number with a public name in capitals"):
            small_chunks(name, 4)


def asserts(node: ast.AST) -> bool:
    """Whether anything in it can fail by itself."""
    for one in ast.walk(node):
        match one:
            case ast.Assert(test=test) if not isinstance(test, ast.Constant):
                return True
            case ast.Attribute(value=ast.Name("pytest"), attr="raises" | "warns" | "fail"):
                return True
            case ast.Attribute(value=ast.Name("torch" | "np"), attr="testing"):
                return True
    return False


@cache
def asserting_methods() -> frozenset[str]:
    """The methods of classes under tests that assert something, such as `OtherDevice.agrees`."""
    return frozenset(
        method.name
        for name in FILES
        for cls in tree_of(name).body
        if isinstance(cls, ast.ClassDef)
        for method in functions_of(cls)
        if asserts(method)
    )


@cache
def asserting_functions(name: str) -> frozenset[str]:
    return frozenset(one.name for one in functions_of(tree_of(name)) if asserts(one))


def asserting_helpers(tree: ast.Module) -> set[str]:
    """The functions of a test file, its own and those of others under tests, that assert."""
    found = {one.name for one in functions_of(tree) if asserts(one)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            file = f"{node.module.replace('.', '/')}.py"
            there = asserting_functions(file) if file in FILES else ()
            found |= {a.asname or a.name for a in node.names if a.name in there}
    return found


def functions_of(node: ast.Module | ast.ClassDef) -> list[ast.FunctionDef]:
    return [one for one in node.body if isinstance(one, ast.FunctionDef)]


def cannot_fail(tree: ast.Module) -> Iterator[str]:
    """The tests that assert nothing, neither themselves nor in a helper that they call."""
    helpers = asserting_helpers(tree)
    for test in functions_of(tree):
        if not test.name.startswith("test_") or asserts(test):
            continue
        calls = [node.func for node in ast.walk(test) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        methods = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        if not names & helpers and not methods & asserting_methods():
            yield test.name


def test_every_test_can_fail():
    found = {name: told for name in FILES if (told := list(cannot_fail(tree_of(name))))}
    assert found == {}


HELPER = "def helper(x):\n    assert x\n"


@pytest.mark.parametrize(
    ("source", "can_fail"),
    [
        ("def test_a():\n    run()", False),
        ("def test_a():\n    assert True", False),
        ("def helper(x):\n    run(x)\ndef test_a():\n    helper(1)", False),
        ("def test_a():\n    with suppress(ValueError):\n        run()", False),
        ("def test_a():\n    assert run()", True),
        ("def test_a():\n    with pytest.raises(ValueError):\n        run()", True),
        ("def test_a():\n    torch.testing.assert_close(run(), 1)", True),
        (HELPER + "def test_a():\n    helper(1)", True),
        ("from tests.saes.formats.test_fuzz import refuse\ndef test_a():\n    refuse(1)", True),
        ("def test_a(other):\n    other.agrees(1, 2)", True),
    ],
)
def test_a_test_that_asserts_nothing_is_found(source, can_fail):
    assert list(cannot_fail(ast.parse(source))) == ([] if can_fail else ["test_a"])
