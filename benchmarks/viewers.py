"""Whether circuit-tracer's own viewer opens what `circuits render --to circuit-tracer` writes.

    python -m benchmarks.viewers RUN [SCREENSHOT.png]
    python -m benchmarks.viewers --schemas FOLDER RUN

RUN is a run folder rendered so. The viewer's pages come from its wheel on PyPI, the libraries that
they load from the network from npm (which needs node); Chromium opens them, and is given nothing
from anywhere else. Counts what is drawn, clicks every feature, and fails where a node is missing, a
feature's examples are not shown, or the page reports an error.

With `--schemas` what `--to neuronpedia` wrote is held against the schemas that Neuronpedia checks
an upload with, by the same validator: FOLDER is `apps/webapp/app/api/graph` of a checkout of it.
Its own pages need its database, and are not opened.

Differs: the pages ask for a fork of d3-jetpack that is not on npm; what it has more than 2.3.0,
`drawAxis` as a method of a plot, is added.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, sync_playwright

RESULTS = Path(__file__).parent / "results" / "viewers.json"
VIEWER = "circuit-tracer==0.5.0"
PACKAGES = ("d3@7.9.0", "d3-jetpack@2.3.0", "dagre@0.8.5", "pako@2.1.0", "esbuild@0.25.0")
ADDRESS = "http://viewer.invalid"
METHODS = ["append", "appendMany", "at", "st", "insert", "parent", "selectAppend", "tspans"]
PARTS = ["conventions", "drawAxis", "attachTooltip", "nestBy", "clamp", "round"]
JETPACK = "./node_modules/d3-jetpack/src"
ENTRY = (
    'import * as base from "d3";\n'
    + "".join(f'import {name} from "{JETPACK}/{name}.js";\n' for name in (*METHODS, *PARTS))
    + f'import translate from "{JETPACK}/translate-selection.js";\n'
    + f"Object.assign(base.selection.prototype, {{translate, {', '.join(METHODS)}}});\n"
    + "const plot = o => { const c = conventions(o);"
    + " c.drawAxis = svg => drawAxis({...c, svg}); return c };\n"
    + f"window.d3 = {{...base, {', '.join(PARTS)}, conventions: plot}};\n"
)


def main(run: Path, screenshot: Path | None = None) -> None:
    """Open the run's graph, look at all of it, write what was found."""
    data = run / "circuit-tracer"
    (slug,) = (g["slug"] for g in json.loads((data / "graph-metadata.json").read_text())["graphs"])
    graph = json.loads((data / f"{slug}.json").read_text(encoding="utf-8"))
    with TemporaryDirectory() as temporary, sync_playwright() as driver:
        pages, libraries = _viewer(Path(temporary)), _libraries(Path(temporary))
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.route("**/*", lambda route: _serve(route, pages, data, libraries))
        found = _looked_at(page, graph, screenshot)
        browser.close()
    wrong = [
        *found["errors"],
        *(["nodes are missing"] if found["nodes_drawn"] != found["nodes"] else []),
        *(["features are not shown"] if found["features_shown"] != found["features"] else []),
    ]
    print(json.dumps(found, indent=1))
    if wrong:
        raise SystemExit(f"{VIEWER} does not open {data}: {'; '.join(wrong)}")
    RESULTS.write_text(json.dumps({"viewer": VIEWER, **found}, indent=1) + "\n")


def _looked_at(page: Page, graph: dict[str, Any], screenshot: Path | None) -> dict[str, Any]:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(f"{ADDRESS}/index.html")
    page.locator(".link-graph text.node").first.wait_for()
    features = [n for n in graph["nodes"] if n["feature_type"] == "cross layer transcoder"]
    shown = 0
    for node in features:
        # The page goes to what its address says is clicked.
        page.goto(f"{ADDRESS}/index.html?clickedId={node['node_id']}")
        page.locator(".feature-detail .example-quantile").first.wait_for()
        said = page.locator(".feature-detail").inner_text()
        shown += node["clerp"][:20] in said and "Top activations" in said
    if screenshot:
        page.screenshot(path=screenshot)
    return {
        "nodes": len(graph["nodes"]),
        "nodes_drawn": page.locator(".link-graph text.node").count(),
        "features": len(features),
        "features_shown": shown,
        "errors": errors,
    }


def _serve(route: Route, pages: Path, data: Path, libraries: dict[str, Path]) -> None:
    """What circuit-tracer's server would give, and the libraries; nothing else."""
    url = urlsplit(route.request.url)
    name = url.path.rsplit("/", 1)[-1]
    if f"{url.scheme}://{url.netloc}" == ADDRESS:
        _, first, *rest = url.path.split("/")
        found = data.joinpath(*rest) if first in ("data", "graph_data") else pages / url.path[1:]
        if found.is_file():
            return route.fulfill(path=found)
        return route.fulfill(status=204 if name == "favicon.ico" else 404)
    if name in libraries:
        return route.fulfill(path=libraries[name])
    return route.fulfill(body="", content_type="text/javascript")


def _viewer(into: Path) -> Path:
    """The pages of the viewer."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into)]
    subprocess.run([*pip, VIEWER], check=True)
    with zipfile.ZipFile(next(into.glob("*.whl"))) as wheel:
        wheel.extractall(into)
    return into / "circuit_tracer" / "frontend" / "assets"


def _libraries(into: Path) -> dict[str, Path]:
    """What the pages load, by the last part of its address."""
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(into)]
    subprocess.run([*npm, *PACKAGES], check=True)
    (into / "entry.js").write_text(ENTRY)
    build = ["--bundle", "--format=iife", "--outfile=d3.js", "--log-level=error"]
    subprocess.run(["node_modules/.bin/esbuild", "entry.js", *build], check=True, cwd=into)
    modules = into / "node_modules"
    return {
        "d3.js": into / "d3.js",
        "dagre.min.js": modules / "dagre" / "dist" / "dagre.min.js",
        "pako.min.js": modules / "pako" / "dist" / "pako.min.js",
    }


CHECK = """
const [schema, ...files] = process.argv.slice(2);
const read = path => JSON.parse(require('fs').readFileSync(path));
const validate = new (require('ajv'))({allErrors: true, strict: false}).compile(read(schema));
for (const file of files)
    if (!validate(read(file))) { console.log(file, validate.errors); process.exitCode = 1; }
"""


def validate(run: Path, schemas: Path) -> None:
    """Fail where the files for Neuronpedia are not of its schemas."""
    folder = run / "neuronpedia"
    pairs = {
        "graph-schema.json": sorted(folder.glob("*.json")),
        "feature-details-schema.json": sorted((folder / "features").glob("*.json")),
    }
    with TemporaryDirectory() as temporary:
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", temporary]
        subprocess.run([*npm, "ajv@8"], check=True)
        (Path(temporary) / "check.js").write_text(CHECK)
        for schema, files in pairs.items():
            names = [str(path.resolve()) for path in (schemas / schema, *files)]
            subprocess.run(["node", "check.js", *names], check=True, cwd=temporary)
            print(f"{len(files)} files are of {schema}")


if __name__ == "__main__":
    if "--schemas" in sys.argv:
        validate(Path(sys.argv[3]), Path(sys.argv[2]))
    else:
        main(*map(Path, sys.argv[1:]))
