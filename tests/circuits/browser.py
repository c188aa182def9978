"""The browser that tests of pages run in.

Chromium without its windows where there is that: a page takes a third of the time in it.
"""

import shutil

import pytest

BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")
SIZE = {"width": 1280, "height": 800}
"Of a page in a test, in pixels."
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no `chromium-headless-shell` or `chromium` on the PATH"
)


def as_new(tab):
    """No page, nothing kept by one, and no setting of a test, in a tab."""
    tab.goto("about:blank")
    tab.set_viewport_size(SIZE)
    tab.emulate_media(media="null", color_scheme="null", reduced_motion="null")
    tab.mouse.move(0, 0)
    session = tab.context.new_cdp_session(tab)
    session.send("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "all"})
    session.detach()
