"""The page's modules that need no browser, in node's own test runner."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from circuits.render.assets import HERE as RENDER
from circuits.render.assets import script
from hooked_qwen.percents import percent

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


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
def test_pages_and_the_terminal_round_shares_alike():
    rng = random.Random(0)
    shares = [i / n for n in (8, 40, 64, 1000) for i in range(n + 1)]
    shares += [rng.random() * 10.0 ** -rng.randrange(9) for _ in range(1000)]
    assert NODE is not None
    code = f"""
        import {{ percent }} from "{(RENDER / "page_numbers.mjs").as_uri()}";
        console.log(JSON.stringify({json.dumps(shares)}.map(percent)));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=code, capture_output=True, text=True, check=True
    )
    assert [text.replace(" ", "") for text in json.loads(done.stdout)] == list(map(percent, shares))
