"""Run notebooks and keep what their cells show: no more than IPython, which pyvis brings.

python docs/notebooks/execute.py docs/notebooks/main_job.ipynb
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells; raises what a cell raises."""
    shell = InteractiveShell()
    # What a cell ends in is taken from its result, and not printed besides.
    shell.displayhook.write_format_data = shell.displayhook.write_output_prompt = _nothing
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell = cell | {"execution_count": None, "outputs": _outputs(shell, cell)}
        cells.append({"id": f"cell-{number}"} | cell)
    return notebook | {"cells": cells}


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _outputs(shell: InteractiveShell, cell: dict[str, Any]) -> list[dict[str, Any]]:
    source = "".join(cell["source"])
    # Warnings and progress are of the machine that ran it.
    with contextlib.redirect_stderr(io.StringIO()), capture_output(stderr=False) as shown:
        result = shell.run_cell(source, store_history=False, silent=False)
    result.raise_error()
    found: list[dict[str, Any]] = []
    if shown.stdout:
        lines = shown.stdout.splitlines(True)
        found.append({"output_type": "stream", "name": "stdout", "text": lines})
    if result.result is not None:
        data, _ = DisplayFormatter().format(result.result)
        listed = {kind: str(value).splitlines(True) for kind, value in data.items()}
        found.append({"output_type": "display_data", "data": listed, "metadata": {}})
    return found


def main(paths: list[str]) -> None:
    """Write each notebook anew, run in an empty folder."""
    for path in map(Path, paths):
        path = path.resolve()
        with TemporaryDirectory() as folder, contextlib.chdir(folder):
            made = execute(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
