"""A real browser for the tests of pages; the commands as a user calls them."""

import sys
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from circuits import opening
from circuits.cli.app import app, main
from hooked_qwen import bundled
from hooked_qwen.load import load
from hooked_qwen.model_place import local_folder
from hooked_qwen.placement import AUTO
from tests.circuits.browser import BROWSER, SIZE, as_new
from tests.circuits.few_texts import shorten
from tests.shared_models import shared
from tests.toys import toy_tokenizer


@pytest.fixture(scope="module", autouse=True)
def _short_text():
    """The README's commands alone are run with as much text as a user has."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def _bundled_model_is_loaded_once():
    """Commands leave it as it is, which is looked at after each file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load", load_once)
        yield


def load_once(source, *, device, dtype):
    made = partial(load, source, device=device, dtype=dtype)
    if local_folder(source) != bundled.PATH or str(device) not in (AUTO, "cpu"):
        return made()
    return shared(("bundled", dtype), made)


def call(*arguments):
    """The outcome of a command."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def ends(monkeypatch, capsys):
    """With which code the command as installed ends, and what it writes to standard error."""

    def run(*arguments, command=None) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["circuits", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main(command)
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def fails(ends):
    """The one line that a failing command prints."""

    def run(*arguments, command=None) -> str:
        code, said = ends(*arguments, command=command)
        assert code == 1
        (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
        return line

    return run


@pytest.fixture
def drawn(monkeypatch):
    """Figures of matplotlib in the order in which they were saved, as they were then."""
    figures = []
    save = Figure.savefig

    def noted(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return figures


@pytest.fixture
def begins():
    """The toy's tokenizer with a token that it puts before every text."""
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="? $A", special_tokens=[("?", tokenizer.convert_tokens_to_ids("?"))]
    )
    return tokenizer


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def violations():
    """What axe-core finds wrong with an open page for people who use it by other means."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    code = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

    def found(tab, *rules: str) -> list[str]:
        """By all rules, or by some alone."""
        if not tab.evaluate("'axe' in window"):
            tab.evaluate(code)
        asked = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        result = tab.evaluate("asked => axe.run(document, asked)", asked)
        return [f"{v['id']}: {node['html']}" for v in result["violations"] for node in v["nodes"]]

    return found


@pytest.fixture(scope="session")
def window(browser):
    """The tab that the first page of every test is opened in: a new one takes as long as a page."""
    return browser.new_context(offline=True, viewport=SIZE).new_page()


@pytest.fixture
def visit(window, tmp_path):
    """Open a page's text from disk; afterwards assert that it stayed quiet and offline."""
    tabs, noise, requests = [], [], []
    file = tmp_path / "page.html"
    watched = {
        "console": lambda message: noise.append(message.text),
        "pageerror": lambda error: noise.append(str(error)),
        "dialog": lambda dialog: (noise.append(dialog.message), dialog.dismiss()),
        "request": lambda request: requests.append(request.url),
    }

    def opened(html):
        file.write_text(html, encoding="utf-8")
        tab = window.context.new_page() if tabs else window
        tabs.append(tab)
        for what, noted in watched.items():
            tab.on(what, noted)
        tab.goto(file.as_uri())
        tab.evaluate("(window.circuit ?? window.suite)?.ready")
        return tab

    yield opened
    for tab in tabs:
        for what, noted in watched.items():
            tab.remove_listener(what, noted)
    for tab in tabs[1:]:
        tab.close()
    as_new(window)
    assert noise == []
    asked = {url.split("#")[0] for url in requests if not url.startswith(("data:", "blob:"))}
    assert asked == {file.as_uri()}
