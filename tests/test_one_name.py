"""One name, one thing: no two modules define a type of the same name.

Types are classes and aliases at the level of a module. An enumeration of the command line may be
called as the type whose choices it offers: both are one thing, said to typer and to pyright.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hooked_qwen", "saes", "transcoders", "circuits")
SCRIPTS = ("experiments", "benchmarks")
ALLOWED = {
    "Estimator": "the command line's are the names of the rows of the table, whose rows are these",
    "_Tally": "sums of what has been seen so far, of other things in each module",
}
"Names that several modules define after all, each with its reason."
COMMAND_LINE = "circuits/cli/"
TYPE = re.compile(r"_?[A-Z]\w*[a-z]\w*")
Choices = frozenset[str]


def sources_of(folders: Iterable[str]) -> dict[str, str]:
    """The text of every module of some folders, by its path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def types_of(source: str) -> dict[str, Choices]:
    """The types that a module defines, with the strings to choose from of those that list some."""
    found: dict[str, Choices] = {}
    for name, values in defined(ast.parse(source)):
        parts = [part for value in values for part in ast.walk(value)]
        texts = {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}
        # An alias may be made of others: `Literal["patch", FixedBaselineValue]`.
        others = [found.get(part.id, frozenset()) for part in parts if isinstance(part, ast.Name)]
        found[name] = frozenset(texts).union(*others)
    return found


def defined(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    """Each type with what an alias stands for, or what the members of an enumeration are."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name, body=body):
                yield name, [member.value for member in body if isinstance(member, ast.Assign)]
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if TYPE.fullmatch(name):
                yield name, [value]


def shared(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of types that several modules define, and which modules do."""
    found: dict[str, dict[str, Choices]] = defaultdict(dict)
    for module, source in sources.items():
        for name, choices in types_of(source).items():
            found[name][module] = choices
    left = {name: [m for m in of if m not in offering(of)] for name, of in found.items()}
    return {name: modules for name, modules in left.items() if len(modules) > 1}


def offering(of: Mapping[str, Choices]) -> list[str]:
    """The module of the command line that offers the choices of the type defined elsewhere."""
    known = [choices for module, choices in of.items() if not module.startswith(COMMAND_LINE)]
    options = {m: choices for m, choices in of.items() if m.startswith(COMMAND_LINE)}
    return [m for m, some in options.items() if some and any(some <= all_ for all_ in known)][:1]


def test_no_two_modules_define_a_type_of_the_same_name():
    found = shared(sources_of(PACKAGES))
    assert found.keys() >= ALLOWED.keys(), "what stands once is not in ALLOWED"
    assert {name: modules for name, modules in found.items() if name not in ALLOWED} == {}


def test_no_experiment_or_benchmark_calls_a_type_as_the_packages_do():
    ours = {name for source in sources_of(PACKAGES).values() for name in types_of(source)}
    found = {
        (path, name)
        for path, source in sources_of(SCRIPTS).items()
        for name in types_of(source)
        if name in ours
    }
    assert found == set()


CLASS = "class Head:\n    layer: int\n"
ALIAS = "Head = int | str\n"
LITERAL = "Fixed = Literal['zero', 'mean']\nTo = Literal['patch', Fixed]\n"
OPTION = "class To(StrEnum):\n    zero = 'zero'\n    patch = 'patch'\n"
ANOTHER = "class To(StrEnum):\n    saelens = 'saelens'\n"


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ({"saes/a.py": CLASS, "circuits/b.py": CLASS}, {"Head"}),
        ({"saes/a.py": CLASS, "circuits/b.py": ALIAS}, {"Head"}),
        ({"saes/a.py": ALIAS, "circuits/b.py": "Head: TypeAlias = int\n"}, {"Head"}),
        ({"saes/a.py": "class _Head: ...\n", "saes/b.py": "_Head = int\n"}, {"_Head"}),
        ({"saes/a.py": LITERAL, "circuits/cli/b.py": ANOTHER}, {"To"}),
        ({"saes/a.py": LITERAL, "circuits/b.py": OPTION}, {"To"}),
        ({"saes/a.py": LITERAL, "circuits/cli/b.py": OPTION, "circuits/cli/c.py": OPTION}, {"To"}),
        ({"circuits/cli/b.py": OPTION, "circuits/cli/c.py": OPTION}, {"To"}),
        ({"saes/a.py": LITERAL, "circuits/cli/b.py": OPTION}, set()),
        ({"saes/a.py": CLASS, "saes/b.py": "from saes.a import Head\nHEAD = 1\n"}, set()),
        ({"saes/a.py": CLASS, "saes/b.py": f"def f():\n    {ALIAS}"}, set()),
    ],
)
def test_a_name_that_stands_twice_is_found(sources, names):
    assert shared(sources).keys() == names
