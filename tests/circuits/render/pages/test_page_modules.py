"""The page's modules that need no browser, in node's own test runner."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from circuits.render.pages.assets import HERE as RENDER
from circuits.render.pages.assets import IMPORT, imported
from hooked_qwen.percents import percent

HERE = Path(__file__).parent
MODULES = sorted(path.relative_to(RENDER) for path in RENDER.rglob("*.mjs"))
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
@pytest.mark.parametrize("path", sorted(HERE.rglob("*.test.mjs")), ids=lambda path: path.stem)
def test_modules_pass_their_own_tests(path):
    assert NODE is not None
    done = subprocess.run([NODE, "--test", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "# fail 0" in done.stdout


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
def test_pages_and_the_terminal_round_shares_alike():
    rng = random.Random(0)
    shares = [i / n for n in (8, 40, 64, 1000) for i in range(n + 1)]
    shares += [rng.random() * 10.0 ** -rng.randrange(9) for _ in range(1000)]
    assert NODE is not None
    code = f"""
        import {{ percent }} from "{(RENDER / "numbers.mjs").as_uri()}";
        console.log(JSON.stringify({json.dumps(shares)}.map(percent)));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=code, capture_output=True, text=True, check=True
    )
    assert [text.replace(" ", "") for text in json.loads(done.stdout)] == list(map(percent, shares))


GLOBALS = """
AbortController Array Blob Boolean CSS DecompressionStream Error Float32Array Image Infinity
Int16Array JSON Map Math Number Object Promise ResizeObserver Response Set String TextDecoder
TextEncoder URL URLSearchParams Uint16Array Uint32Array Uint8Array XMLSerializer atob btoa
cancelAnimationFrame clearTimeout document encodeURIComponent getComputedStyle history
localStorage location matchMedia requestAnimationFrame setTimeout undefined vis window
"""


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
def test_a_module_imports_every_name_that_it_takes_from_another():
    assert NODE is not None
    command = [NODE, "--expose-internals", HERE / "free_names.cjs", *MODULES]
    done = subprocess.run(command, cwd=RENDER, capture_output=True, text=True, check=False)
    if "Cannot find module 'internal" in done.stderr:
        pytest.skip("this node has no parser of its own")
    assert done.returncode == 0, done.stderr
    free = json.loads(done.stdout)
    assert len(free) == len(MODULES) > 30
    known = set(GLOBALS.split())
    assert {name: lacking for name in free if (lacking := set(free[name]) - known)} == {}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_short_and_uses_what_it_imports(path):
    text = (RENDER / path).read_text(encoding="utf-8")
    assert text.count("\n") < 300
    body = IMPORT.sub("", text)
    for names, source in IMPORT.findall(text):
        assert (RENDER / imported(path.as_posix(), source)).is_file()
        for name in re.findall(r"[\w$]+", names):
            assert re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", body), name
