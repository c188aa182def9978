"""The page of a search, in a browser: the list, texts coloured by a feature, notes."""

import json

import pytest

from circuits.features.explanations import read_explanations
from circuits.features.labels import Label, read_labels
from circuits.render.pages.search.search_page import ranked, search_page

HOSTILE = "</script><script>alert(1)</script>"
NAMES = ("resid_post.1/3", "mlp_out.2/7", "mlp_out.2/9")


def row(feature, difference, label="a label"):
    return {
        "feature": feature,
        "label": label,
        "on_positive": 0.75,
        "on_negative": 0.75 - difference,
        "difference": difference,
        "interval": [difference - 0.2, difference + 0.2],
        "effect": 1.5,
        "effect_interval": [0.9, 2.2],
        "by_chance": 0.01,
    }


@pytest.fixture
def record():
    return {
        "how": "contrast",
        "by": "share",
        "texts": {"positive": 4, "negative": 4},
        "features_on": 1200,
        "chance": 0.5,
        "found": [row(NAMES[0], 0.5, HOSTILE), row(NAMES[1], -0.25)],
    }


@pytest.fixture
def texts():
    runs = [
        {"text": "The", "first": 0, "pieces": ["The"]},
        {"text": " 复", "first": 1, "pieces": [" <0xE5>", "<0xA4><0x8D>"]},
        {"text": HOSTILE, "first": 3, "pieces": [HOSTILE]},
    ]
    return [
        {
            "kind": kind,
            "runs": runs,
            "tops": [[[NAMES[0], 4.0]], [[NAMES[2], 2.0]], [[NAMES[1], 1.0]], []],
            "on": on,
        }
        for kind, on in (
            ("positive", {NAMES[0]: [[0, 4.0], [2, 2.0]], NAMES[2]: [[1, 2.0]]}),
            ("negative", {NAMES[1]: [[2, 1.0]]}),
        )
    ]


LABELS = {NAMES[2]: "another"}


def opened(visit, record, texts, **more):
    return visit(search_page(record, texts, LABELS, facts={"Model": "toy"}, **more))


def shade(tab, place):
    return tab.locator(place).evaluate("e => e.style.background")


def test_the_list_has_its_numbers_and_what_chance_gives(visit, record, texts):
    tab = opened(visit, record, texts)
    rows = tab.locator("#ranked tbody tr")
    assert rows.count() == 2
    cells = rows.first.locator("td").all_inner_texts()
    assert cells[0] == "0.75"
    assert "+0.50" in cells[2]
    assert "+0.30 to +0.70" in cells[2]
    said = tab.locator("#ranked").inner_text()
    assert "Shuffled labels reach 0.5" in said
    assert "4 positive and 4 negative texts; 1,200 features" in said
    assert HOSTILE in said


def test_the_interval_is_of_what_features_are_ranked_by(visit, record, texts):
    tab = opened(visit, {**record, "by": "mean"}, texts)
    cells = tab.locator("#ranked tbody tr").first.locator("td").all_inner_texts()
    assert "to" not in cells[2]
    assert "+0.90 to +2.20" in cells[3]
    assert tab.locator("#ranked th.drawn").inner_text() == "difference in s.d."


def test_texts_are_coloured_by_the_feature_that_is_chosen(visit, record, texts):
    tab = opened(visit, record, texts)
    assert tab.locator(".strip-of-tokens").all_inner_texts() == [f"The 复{HOSTILE}"] * 2
    assert shade(tab, "#run-0-0") != ""
    # Part of a character on: the character is coloured, less than where it is on most.
    assert shade(tab, "#run-0-1") not in ("", shade(tab, "#run-0-0"))
    assert shade(tab, "#run-1-1") == ""
    tab.get_by_role("button", name=NAMES[1]).click()
    assert shade(tab, "#run-0-0") == ""
    assert shade(tab, "#run-1-1") != ""
    assert "#feature=mlp_out.2%2F7" in tab.url


def test_a_run_shows_what_is_on_at_each_of_its_tokens(visit, record, texts):
    tab = opened(visit, record, texts)
    tab.locator("#run-0-1").click()
    said = tab.get_by_role("region", name="Features at the chosen token")
    assert "tokens 2 to 3" in said.inner_text()
    pieces = said.locator(".piece").all_text_contents()
    assert pieces == [" <0xE5>, token 2", "<0xA4><0x8D>, token 3"]
    said.get_by_role("button", name="another").click()
    assert tab.evaluate("suite.chosen()") == NAMES[2]
    assert shade(tab, "#run-0-1") != ""


def test_the_keyboard_does_all_of_it(visit, record, texts):
    tab = opened(visit, record, texts)
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("suite.chosen()") == NAMES[1]
    tab.keyboard.press("ArrowUp")
    tab.locator("#text-0").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("[role=option][aria-selected=true]").get_attribute("id") == "run-0-1"
    assert tab.evaluate("document.activeElement.id") == "text-0"
    tab.keyboard.press("Escape")
    assert tab.locator("[role=option][aria-selected=true]").count() == 0
    tab.locator("#ranked").focus()
    tab.keyboard.press("n")
    assert tab.evaluate("document.activeElement.id") == "note"


def test_notes_are_kept_and_saved_as_the_labels_command_reads_them(visit, record, texts, tmp_path):
    tab = opened(visit, record, texts)
    tab.get_by_label(f"Note on {NAMES[0]}").fill("determiners 复数")
    assert tab.locator("#tally").inner_text() == "1 note"
    assert "noted" in tab.locator("#ranked tbody tr").first.inner_text()
    tab.reload()
    tab.evaluate("suite.ready")
    assert tab.get_by_label(f"Note on {NAMES[0]}").input_value() == "determiners 复数"
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save notes").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    said = {NAMES[0]: Label(text="determiners 复数")}
    assert read_explanations(path) == read_labels(path) == said


def test_features_lead_to_their_pages_where_there_are_any(visit, record, texts):
    tab = opened(visit, record, texts, pages={NAMES[0]: "features/suite.html#feature=x"})
    assert tab.get_by_role("link", name="its page").get_attribute("href") == (
        "features/suite.html#feature=x"
    )
    tab.get_by_role("button", name=NAMES[1]).click()
    assert tab.get_by_role("link", name="its page").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_in_light_and_dark(visit, violations, record, texts, scheme):
    tab = opened(visit, record, texts)
    tab.emulate_media(color_scheme=scheme)
    tab.locator("#run-0-1").click()
    assert violations(tab) == []


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_wider_than_the_window(visit, record, texts, width):
    tab = opened(visit, record, texts)
    tab.set_viewport_size({"width": width, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_on_a_phone_a_feature_has_its_whole_name(visit, record, texts):
    tab = opened(visit, record, texts)
    tab.set_viewport_size({"width": 390, "height": 800})
    wide = "e => e.scrollWidth - e.clientWidth"
    assert tab.locator("#ranked").evaluate(wide) <= 0
    assert [e.evaluate(wide) for e in tab.locator("#ranked th button").all()] == [0, 0]
    assert tab.locator("#ranked .where").all_inner_texts() == list(NAMES[:2])


def test_on_a_phone_a_tap_brings_the_texts_into_view_and_back(visit, record, texts):
    many = [row(f"mlp_out.2/{i}", 0.5) for i in range(20, 60)]
    tab = opened(visit, {**record, "found": [*record["found"], *many]}, texts)
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.locator("#ranked tbody button").nth(1).click()
    assert abs(tab.locator("#texts").bounding_box()["y"]) < 400
    assert tab.evaluate("document.activeElement.id") == "texts"
    assert NAMES[1] in tab.locator("#chosen").inner_text()
    tab.locator(".back").click()
    box = tab.locator("#ranked tbody tr").nth(1).bounding_box()
    assert 0 <= box["y"] < 800
    assert NAMES[1] in tab.evaluate("document.activeElement.textContent")


def test_beside_the_list_a_click_keeps_the_focus_in_it_and_scrolls_nothing(visit, record, texts):
    tab = opened(visit, record, texts)
    tab.set_viewport_size({"width": 1280, "height": 800})
    tab.locator("#ranked tbody button").nth(1).click()
    assert tab.evaluate("scrollY") == 0
    assert NAMES[1] in tab.evaluate("document.activeElement.textContent")
    assert not tab.locator(".back").is_visible()


def test_the_columns_say_what_they_are(visit, record):
    tab = visit(search_page(record))
    heads = tab.locator("#ranked thead th").all_inner_texts()
    assert heads[1:] == [
        "on in positive", "on in negative", "difference", "difference in s.d.", "by chance",
    ]  # fmt: skip
    said = tab.locator("#ranked .note").first.inner_text()
    assert "share of the texts of each kind" in said
    assert "in standard deviations" in said


def test_of_a_text_each_feature_stands_once_by_its_largest_activation(visit, texts):
    def of(feature, activation):
        return {"feature": feature, "label": "x", "activation": activation}

    record = {
        "how": "text",
        "tokens": [
            {"token": "The", "features": [of("a.1/1", 2.0), of("a.1/2", 1.0)]},
            {"token": " x", "features": [of("a.1/2", 3.0)]},
        ],
    }
    assert [(r["feature"], r["activation"]) for r in ranked(record)] == [
        ("a.1/2", 3.0),
        ("a.1/1", 2.0),
    ]
    tab = visit(search_page(record, texts[:1], LABELS))
    assert tab.locator("#ranked tbody tr").count() == 2


@pytest.mark.parametrize("how", ["token", "label"])
def test_a_search_without_texts_is_a_list(visit, violations, how):
    found = [{"feature": NAMES[0], "label": "x", "logits": 1.5}]
    tab = visit(search_page({"how": how, "found": found}))
    assert NAMES[0] in tab.locator("#ranked").inner_text()
    assert violations(tab) == []


def test_effects_stand_beside_those_of_random_features(visit):
    row = {"label": "x", "texts_on": 3, "estimate": 0.1, "interval": None, "by_chance": None}
    record = {
        "how": "effect",
        "metric": "logit-difference",
        "reference": "patch",
        "texts": {"prompts": 4},
        "features_on": 10,
        "chance": None,
        "agreement": {"pearson": 0.9},
        "found": [{"feature": NAMES[0], "exact": -0.2, **row}],
        "random": {
            "features": [{"feature": NAMES[1], "exact": 0.01, **row}],
            "mean_size": 0.01,
            "mean_size_of_found": 0.2,
        },
    }
    said = visit(search_page(record)).locator("#ranked").inner_text()
    assert "−0.2" in said
    assert (
        "Change of the metric logit-difference when the feature is set to its patch value" in said
    )
    assert "mean size of the exact effect 0.01, of those above 0.2" in said
    assert json.dumps(record)


def test_of_two_sets_the_effects_in_each_stand_beside_their_difference(visit):
    """A feature that raises the metric in negative texts alone has a negative difference."""
    row = {"label": "x", "texts_on": 3, "estimate": -0.3, "interval": [-0.4, -0.2], "by_chance": 0}
    found = {"feature": NAMES[0], "exact": -0.324, "positive": 0.0, "negative": 0.324, **row}
    record = {
        "how": "effect",
        "metric": "token: sit",
        "reference": "zero",
        "texts": {"positive": 4, "negative": 4},
        "features_on": 10,
        "chance": 0.2,
        "shuffles": 200,
        "agreement": {"pearson": 0.9},
        "found": [found],
        "random": {"features": [found], "mean_size": 0.01, "mean_size_of_found": 0.3},
    }
    tab = visit(search_page(record))
    heads = tab.locator("#ranked thead th").all_inner_texts()
    cells = tab.locator("#ranked tbody td").all_inner_texts()
    shown = dict(zip(heads[1:], cells, strict=True))
    assert "−0.324" in shown["difference"]
    assert (shown["in positive"], shown["in negative"]) == ("0", "+0.324")
    assert shown["by chance"] == "<0.005"
    said = tab.locator("#ranked").inner_text()
    assert "the first less the second" in said
    assert "in nats" in said
