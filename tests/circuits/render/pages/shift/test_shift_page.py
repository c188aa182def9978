"""The page of a shifted classifier, in a browser: scores, cards, and judgements saved from it."""

import pytest

from circuits.render.pages.shift.shift_page import shift_page
from circuits.shift.judging import read_judgements
from hooked_qwen.nodes import Node

HOSTILE = "</script><script>alert(1)</script>"
NAMES = ("resid_post.1/3", "mlp_out.2/7")


def number(value, interval=None):
    return {"value": value, "interval": interval}


@pytest.fixture
def record():
    method = {
        "label": number(0.61, [0.52, 0.7]),
        "spurious": number(0.8, [0.71, 0.88]),
        "worst": number(0.28),
        "groups": [number(g) for g in (0.95, 0.33, 0.28, 0.9)],
        "seeds": 1,
        "draws": 3,
    }
    return {
        "data": "biographies",
        "label": ["profession", "nurse", HOSTILE],
        "spurious": ["gender", "female", "male"],
        "model": "toy",
        "sites": ["resid_post.2"],
        "config": {"seeds": 1},
        "methods": {"nothing changed": method, "SHIFT": method},
        "features": [
            [
                {"node": NAMES[0], "label": 1.2, "spurious": 0.1, "cut": False, "reason": "0.1 %"},
                {"node": NAMES[1], "label": -0.4, "spurious": None, "cut": None, "reason": ""},
            ]
        ],
        "notes": [HOSTILE],
    }


@pytest.fixture
def cards():
    card = {
        "promoted": [[" she", 1.5], [HOSTILE, 1.0]],
        "suppressed": [[" he", -1.5]],
        "density": 0.01,
        "tokens_seen": 1000,
        "max_activation": 2.0,
        "examples": [{"tokens": [" Anna", " was"], "values": [2.0, 0.0], "peak": 0}],
    }
    return dict.fromkeys(NAMES, card)


def test_scores_stand_with_their_intervals(visit, record, cards):
    tab = visit(shift_page(record, cards))
    rows = tab.locator("#scores tbody tr")
    assert rows.count() == 2
    cells = rows.first.locator("td").all_inner_texts()
    assert "0.61" in cells[0]
    assert "0.52 to 0.70" in cells[0]
    assert "–" in cells[2]
    assert cells[3:] == ["0.95", "0.33", "0.28", "0.90"]
    assert "(3 draws)" in rows.first.inner_text()
    assert HOSTILE in tab.locator("#scores").inner_text()
    scroll = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert scroll <= 0


def test_what_is_judged_on_the_page_is_a_file_that_the_command_reads(
    visit, record, cards, tmp_path
):
    tab = visit(shift_page(record, cards))
    assert tab.locator("#tally").inner_text() == "0 features of 2 to be cut"
    article = tab.get_by_role("article", name=NAMES[1])
    article.get_by_label("cut", exact=True).check()
    article.get_by_label(f"Reason, {NAMES[1]}").fill("a pronoun")
    assert tab.locator("#tally").inner_text() == "1 feature of 2 to be cut"
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save judgements").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    said = read_judgements(path)
    assert path.name == "judgements.json"
    assert said[Node.parse(NAMES[1])]["cut"] is True
    assert said[Node.parse(NAMES[1])]["reason"] == "a pronoun"
    assert said[Node.parse(NAMES[0])]["cut"] is False


def test_a_card_opens_under_its_feature(visit, record, cards):
    tab = visit(shift_page(record, cards))
    article = tab.get_by_role("article", name=NAMES[0])
    assert not article.get_by_text("Promotes").is_visible()
    article.locator("summary").click()
    assert article.get_by_text("Promotes").is_visible()
    assert article.locator(".example").inner_text().strip().startswith("Anna")


def test_the_page_is_accessible(visit, violations, record, cards):
    assert violations(visit(shift_page(record, cards))) == []
