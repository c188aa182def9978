"""One tab serves all tests of pages: nothing of one test is left in it for the next."""

from tests.circuits.browser import SIZE, as_new, needs_browser

PAGE = "<!doctype html><title>A page</title><input autofocus>"


@needs_browser
def test_what_a_page_keeps_and_how_it_was_shown_is_gone(visit):
    tab = visit(PAGE)
    tab.evaluate("localStorage.setItem('pinned', 'a')")
    tab.emulate_media(color_scheme="dark", media="print")
    tab.set_viewport_size({"width": 300, "height": 300})
    as_new(tab)
    assert tab.url == "about:blank"
    for asked in ("(prefers-color-scheme: dark)", "print"):
        assert not tab.evaluate("asked => matchMedia(asked).matches", asked)
    assert tab.viewport_size == SIZE
    other = visit(PAGE)
    assert other.evaluate("localStorage.length") == 0
