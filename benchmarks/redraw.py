"""How long the page's frames take: moving and zooming the picture, selecting a node.

    python -m benchmarks.redraw [BEFORE]

Made-up circuits of 100, 300 and 1,500 nodes with every edge drawn, in headless Chromium without a
GPU, by the mouse and the wheel as a person moves them. A frame's time is that of the scripts that
draw it and of its pixels, which are asked for at once. BEFORE is a checkout of an earlier version,
whose pages are moved in turn with ours. Prints medians and the slowest frame, in ms; writes
`results/redraw.json`.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
SIZES = (100, 300, 1500)
ROUNDS = 3
MAKE = """
import sys
from circuits.render.pages.circuit.page import page
from tests.circuits import synthetic
for n in map(int, sys.argv[2:]):
    open(f"{sys.argv[1]}/{n}.html", "w", encoding="utf-8").write(page(synthetic.circuit(n)))
"""
TIMED = """
window.frames_ms = [];
window.pixels = () =>
    document.querySelector("#network canvas")?.getContext("2d").getImageData(0, 0, 1, 1);
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => ask((now) => {
    const start = performance.now();
    draw(now);
    pixels();
    frames_ms.push(performance.now() - start);
});
"""
ALL_EDGES = """slider => {
    slider.value = slider.max;
    for (const name of ["input", "change"]) slider.dispatchEvent(new Event(name));
}"""
SELECT = """async (key) => {
    const start = performance.now();
    circuit.select(key);
    const own = performance.now() - start;
    frames_ms.length = 0;
    await new Promise((done) => setTimeout(done, 100));
    return own + Math.max(0, ...frames_ms);
}"""


def main(before: Path | None = None) -> None:
    """Measure, print, write."""
    versions = {"before": before, "now": HERE.parent} if before else {"now": HERE.parent}
    with TemporaryDirectory() as temporary, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, checkout in versions.items():
            _make(checkout, Path(temporary) / name)
        found = {
            str(n): _measured(browser, {v: Path(temporary) / v / f"{n}.html" for v in versions})
            for n in SIZES
        }
    for n, rows in found.items():
        for gesture, times in rows.items():
            told = "  ".join(
                f"{v} {t['median']} (slowest {t['slowest']})" for v, t in times.items()
            )
            print(f"{n:>5} nodes  {gesture:7} {told}")
    path = HERE / "results" / "redraw.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _make(checkout: Path | None, out: Path) -> None:
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", MAKE, out, *map(str, SIZES)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
    )


def _measured(browser: Browser, pages: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """For each gesture and version the median and the slowest frame, ms."""
    tabs = {version: _opened(browser, path) for version, path in pages.items()}
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(ROUNDS):
        for gesture, act in GESTURES.items():
            for version, tab in tabs.items():
                times.setdefault(gesture, {}).setdefault(version, []).extend(act(tab))
    for tab in tabs.values():
        tab.close()
    return {
        gesture: {
            version: {"median": round(statistics.median(ms), 1), "slowest": round(max(ms), 1)}
            for version, ms in rows.items()
        }
        for gesture, rows in times.items()
    }


def _opened(browser: Browser, path: Path) -> Page:
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.add_init_script(TIMED)
    tab.goto(path.as_uri())
    tab.evaluate("circuit.ready")
    tab.locator("#cells").evaluate("box => box.checked && box.click()")
    tab.locator("#edge-count").evaluate(ALL_EDGES)
    tab.wait_for_timeout(3000)
    return tab


def _moved(tab: Page) -> list[float]:
    box = tab.locator("#network").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.evaluate("frames_ms.length = 0")
    for step in range(1, 11):
        tab.mouse.move(x + 5 * step, y + 2 * step)
        tab.wait_for_timeout(20)
    return _ended(tab)


def _zoomed(tab: Page) -> list[float]:
    tab.evaluate("frames_ms.length = 0")
    for notch in (-60, -60, -60, 60, 60, 60):
        tab.mouse.wheel(0, notch)
        tab.wait_for_timeout(30)
    return _ended(tab)


def _ended(tab: Page) -> list[float]:
    tab.mouse.up()
    tab.wait_for_timeout(1500)
    return tab.evaluate("frames_ms")


def _selected(tab: Page) -> list[float]:
    keys = tab.evaluate("circuit.visible().slice(20, 26)")
    found = [tab.evaluate(SELECT, key) for key in keys]
    tab.keyboard.press("Escape")
    return found


GESTURES = {"move": _moved, "zoom": _zoomed, "select": _selected}

if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
