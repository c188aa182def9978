"""The page's modules that need no browser, in node's own test runner."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from circuits.render.assets import script

HERE = Path(__file__).parent
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_modules_pass_their_own_tests(path):
    assert NODE is not None
    done = subprocess.run([NODE, "--test", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "# fail 0" in done.stdout


def test_a_module_keeps_what_it_does_not_export():
    text = script(["page_scene.mjs"])
    assert re.search(r"^const { makeBox, fold, [\w, ]+ } = \(", text, re.MULTILINE)
    assert "export " not in text
