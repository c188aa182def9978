"""The browser that tests of pages run in.

Chromium without its windows where there is that: a page takes a third of the time in it.
"""

import shutil

import pytest

BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no `chromium-headless-shell` or `chromium` on the PATH"
)
