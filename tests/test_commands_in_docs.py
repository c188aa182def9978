"""Commands and Python in the docs are such as the program takes.

Nothing is run: a command's arguments are parsed, a call's are bound to the function.
"""

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

from circuits.cli.app import UsageError, app

ROOT = Path(__file__).parents[1]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GROUP = typer.main.get_command(app)


def commands(text):
    """Arguments of each command, indented or in a block of its own that is no Python.

    Lines that end in a backslash are joined, remarks cut off.
    """
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^    circuits (\S.*?)(?:   .*)?$", joined, re.MULTILINE)
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", joined, re.MULTILINE | re.DOTALL):
        lines += re.findall(r"^circuits (\S.*?)(?:   .*)?$", block, re.MULTILINE)
    found = [shlex.split(line, comments=True) for line in lines]
    return [arguments for arguments in found if "..." not in arguments]


def parse(command, arguments, parent=None):
    """Understand all of the arguments of a command, or of a command of a group."""
    with command.make_context(command.name, [*arguments], parent) as context:
        if hasattr(command, "resolve_command"):
            _, inner, rest = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            parse(inner, rest, context)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_commands_are_understood(path):
    for arguments in commands(path.read_text(encoding="utf-8")):
        try:
            parse(GROUP, arguments)
        except UsageError as error:
            pytest.fail(f"{path.name}: circuits {shlex.join(arguments)}: {error.format_message()}")


def test_a_command_that_is_none_is_told():
    with pytest.raises(UsageError, match="No such option: --strange"):
        parse(GROUP, ["features", "search", "bundled", "--strange", "1"])


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def calls(block):
    """Functions of ours that a block imports and calls, with the call."""
    tree = ast.parse(block)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = importlib.import_module(node.module)
                names[alias.asname or alias.name] = (
                    getattr(module, alias.name)
                    if hasattr(module, alias.name)
                    else importlib.import_module(f"{node.module}.{alias.name}")
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = importlib.import_module(alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            path = ast.unparse(node.func).split(".")
            function = names.get(path[0])
            for part in path[1:]:
                function = getattr(function, part, None)
            if function is not None and getattr(function, "__module__", "").startswith(
                ("circuits", "saes", "hooked_qwen", "transcoders")
            ):
                yield function, node


SCOPE = "from circuits import scope\n"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_python_calls_functions_as_they_are(path):
    for block in blocks(path.read_text(encoding="utf-8")):
        for function, call in calls(SCOPE + block):
            if any(isinstance(a, ast.Starred) for a in call.args):
                continue
            given = {word.arg: None for word in call.keywords if word.arg}
            try:
                inspect.signature(function).bind(*[None] * len(call.args), **given)
            except TypeError as error:
                pytest.fail(f"{path.name}: {ast.unparse(call)[:80]}: {error}")
