"""The pages of one feature and of a suite in a real browser, offline."""

import copy
import re

import pytest
import torch

from circuits.features.labels import called, called_in_suite
from circuits.features.neighbours import feature_card
from circuits.features.suite_index import suite_record
from circuits.render.pages.feature.feature_page import feature_page, shown
from circuits.render.pages.links import RunLinks
from circuits.render.pages.suite.suite_page import suite_page
from circuits.render.words import readable
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.examples.store import StoreConfig, build_store
from tests.circuits.browser import needs_browser
from tests.toys import random_dictionary, toy_hf, toy_tokenizer

CONFIG = StoreConfig(tokens=8 * 40, block_length=8, top=5, sampled=2)
TEXT = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? " * 9
HOSTILE = [
    "</script><img src=x onerror=alert(1)>{{ 7 * 7 }} ${alert(1)}",
    '" onmouseover="alert(1)',
    "a\nb\tc\r\x1b[2J\u202egnitirw\u2028",
    "עברית <i>mixed</i> العربية 复数名词",
]
FEATURES = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its dictionaries, and their store; each dictionary's last feature is dead."""
    model = hook(toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")
    suite = []
    for seed, text in enumerate(("mlp_out.0", "attn_out.1", "mlp_out.1")):
        spec = DictionarySpec(source=Site.parse(text), target=Site.parse(text), k=4)
        suite.append(random_dictionary(spec, width=FEATURES, seed=seed, dtype=torch.float32))
        suite[-1].W_enc[-1], suite[-1].b_enc[-1] = 0.0, -100.0
    folder = tmp_path_factory.mktemp("store") / "store"
    return model, suite, build_store(model, suite, [TEXT], folder, config=CONFIG)


@pytest.fixture(scope="module")
def card(made):
    model, suite, store = made
    return feature_card(model, suite, store, "mlp_out.1/3")


@pytest.fixture(scope="module")
def record(made):
    quality = {"mlp_out.1": {"l0": 4.0, "fvu": 0.125, "dead": 0.5, "loss_recovered": 0.75}}
    model, suite, store = made
    return suite_record(model, suite, store, quality)


@pytest.fixture(scope="module")
def page(record):
    return suite_page(record, title="Toy suite")


def found(tab, query, scope="any"):
    tab.locator("#scope").select_option(scope)
    tab.locator("#search").fill(query)
    return tab.evaluate("suite.found()")


def names(suite):
    return [f"{d.spec.name}/{i}" for d in suite for i in range(d.n_features)]


def examples(card):
    return card["examples"] + card["sampled"]


@pytest.fixture(scope="module")
def every_card(made):
    model, suite, store = made
    return {name: shown(feature_card(model, suite, store, name)) for name in names(suite)}


@needs_browser
def test_the_page_of_a_feature_shows_its_card(visit, card):
    tab = visit(feature_page(card))
    text = tab.locator("#card").inner_text()
    assert card["label"] in text
    assert "mlp_out.1/3" in text
    drawn = tab.locator(".example").all_text_contents()
    assert drawn == ["".join(e["tokens"]) for e in examples(card)]
    peaks = tab.locator(".example .peak").all_text_contents()
    assert peaks == [e["tokens"][e["peak"]] for e in examples(card)]
    for title in ("Promotes", "Suppresses", "Nearest by decoder", "Nearest by encoder"):
        assert title in text
    for row in [row for rows in card["nearest"].values() for row in rows]:
        assert row["feature"] in text
    assert not re.search("undefined|NaN|null|object Object", text)


SCORES = {
    "balanced_accuracy": 0.8,
    "interval": [0.6, 0.9],
    "f1": 0.8,
    "asked": 20,
    "controls": {"another feature": 0.55, "nothing": None},
}


@needs_browser
def test_a_card_says_who_named_it_and_how_well(visit, violations, card):
    assert "Named by" not in visit(feature_page(card)).locator("#card").inner_text()
    scores = {"judge": "model toy", "detection": SCORES}
    tab = visit(feature_page(card | {"label_by": "model toy", "scores": scores}))
    assert "Named by model toy, judged by model toy" in tab.locator("#card").inner_text()
    cells = tab.get_by_role("region", name="Who named it").locator("tbody td").all_inner_texts()
    assert cells == ["0.80 0.60 to 0.90", "0.55", "–"]
    assert violations(tab) == []


@needs_browser
def test_every_feature_has_the_card_that_its_own_page_has(visit, page, every_card):
    tab = visit(page)
    for name, card in every_card.items():
        drawn = tab.evaluate("name => suite.card(name)", name)
        for key in ("feature", "label", "source", "target", "architecture", "tokens_seen"):
            assert drawn[key] == card[key]
        assert drawn["density"] == pytest.approx(card["density"], rel=1e-5)
        largest = card["max_activation"] or 0.0
        assert (drawn["max_activation"] or 0.0) == pytest.approx(largest, rel=1e-5)
        for key in ("promoted", "suppressed"):
            assert [t for t, _ in drawn[key]] == [t for t, _ in card[key]]
            assert [s for _, s in drawn[key]] == pytest.approx([s for _, s in card[key]], abs=1e-3)
        for key in ("examples", "sampled"):
            assert [(e["tokens"], e["peak"]) for e in drawn[key]] == [
                (e["tokens"], e["peak"]) for e in card[key]
            ]
            for one, other in zip(drawn[key], card[key], strict=True):
                assert one["values"] == pytest.approx(other["values"], abs=0.01 * largest)
        assert drawn["histogram"] == card["histogram"]
        for kind, rows in card["nearest"].items():
            found = [(n["feature"], n["label"]) for n in drawn["nearest"][kind]]
            assert found == [(n["feature"], n["label"]) for n in rows]
            assert [n["cosine"] for n in drawn["nearest"][kind]] == pytest.approx(
                [n["cosine"] for n in rows], abs=1e-4
            )


@needs_browser
def test_cards_and_rows_show_how_often_each_activation_comes(visit, page, card, every_card):
    tab = visit(page)
    for one in every_card.values():
        histogram = one["histogram"]
        assert (histogram is None) == (one["max_activation"] is None)
        if histogram:
            seen = round(one["density"] * one["tokens_seen"])
            assert sum(histogram["counts"]) == pytest.approx(seen, abs=0.5)
    rows = tab.locator("#found-features .row")
    assert tab.locator("#found-features .row .spark").count() == rows.count() > 5
    rows.first.click()
    shown = every_card[tab.evaluate("suite.found()[0]")]["histogram"]
    assert tab.locator("#card .histogram rect").count() == len(shown["counts"])
    own = visit(feature_page(card))
    assert own.locator(".histogram rect").count() == len(card["histogram"]["counts"])
    label = own.locator(".histogram svg").get_attribute("aria-label")
    assert f"on {sum(card['histogram']['counts'])} tokens" in label


@needs_browser
def test_a_suite_of_a_store_without_histograms_has_none(visit, record):
    arrays = {key: value for key, value in record["arrays"].items() if key != "histogram"}
    tab = visit(suite_page({**record, "arrays": arrays, "histogram": None}, title="Features"))
    tab.locator("#found-features .row").first.click()
    assert tab.locator("#card h2").is_visible()
    assert tab.locator(".histogram, .spark").count() == 0


@needs_browser
def test_search_by_promoted_token(visit, page, every_card):
    tab = visit(page)
    active = {n: c for n, c in every_card.items() if c["max_activation"] is not None}
    for query in ("ab", "Q", "!"):
        expected = {
            name
            for name, card in active.items()
            if any(query.lower() in token.lower() for token, _ in card["promoted"])
        }
        assert set(found(tab, query, "promotes")) == expected
        assert expected
    first = tab.evaluate("suite.card(suite.found()[0])")["promoted"][0][0]
    assert first.strip() == "!", "what promotes it most comes first"


@needs_browser
def test_search_by_the_token_a_feature_fires_on(visit, page, every_card):
    tab = visit(page)
    expected = {
        name
        for name, card in every_card.items()
        if any(e["tokens"][e["peak"]].strip().lower() == "j" for e in card["examples"])
    }
    assert set(found(tab, "j", "fires")) == expected
    assert expected


@needs_browser
def test_search_by_the_text_of_examples(visit, page, every_card):
    tab = visit(page)
    active = [card for card in every_card.values() if card["sampled"]]
    phrases = ["".join(card["sampled"][0]["tokens"])[1:6].lower() for card in active[::10]]
    for phrase in [*phrases, "no such phrase"]:
        expected = {
            name
            for name, card in every_card.items()
            if any(phrase in "".join(e["tokens"]).lower() for e in examples(card))
        }
        assert set(found(tab, phrase, "text")) == expected
        assert bool(expected) == (phrase != "no such phrase")
    assert tab.locator("#found-features").inner_text() == "No feature matches."
    assert "0 features of 90" in tab.locator("#counts").inner_text()


@needs_browser
def test_search_by_name_enter_opens_and_reload_keeps(visit, page):
    tab = visit(page)
    tab.keyboard.press("/")
    tab.keyboard.type("attn_out.1/7")
    tab.keyboard.press("Enter")
    assert "attn_out.1/7" in tab.locator("#card").inner_text()
    tab.reload()
    tab.evaluate("suite.ready")
    assert "attn_out.1/7" in tab.locator("#card").inner_text()


@needs_browser
def test_features_that_are_never_active_are_listed_on_demand(visit, page, every_card):
    tab = visit(page)
    silent = {name for name, card in every_card.items() if card["max_activation"] is None}
    assert {"mlp_out.0/29", "attn_out.1/29", "mlp_out.1/29"} <= silent
    assert set(tab.evaluate("suite.found()")) == set(every_card) - silent
    tab.locator("#silent").check()
    assert set(tab.evaluate("suite.found()")) == set(every_card)
    found(tab, "mlp_out.0/29")
    tab.locator("#found-features .row").click()
    assert "no token" in tab.locator("#card").inner_text()
    assert not re.search("undefined|NaN|null", tab.locator("#card").inner_text())


@needs_browser
def test_a_dictionary_filters_the_list_and_shows_its_quality(visit, page):
    tab = visit(page)
    row = tab.locator("#dictionaries tr", has_text="mlp_out.1")
    assert "4.0\t0.125\t50 %\t0.750\t–" in row.inner_text()
    row.click()
    listed = tab.evaluate("suite.found()")
    assert {name.split("/")[0] for name in listed} == {"mlp_out.1"}
    tab.locator("#dictionaries tr", has_text="all").click()
    assert len(tab.evaluate("suite.found()")) > len(listed)


@needs_browser
@pytest.mark.parametrize(("order", "key"), [("density", "density"), ("largest", "max_activation")])
def test_the_list_sorts(visit, page, every_card, order, key):
    tab = visit(page)
    tab.locator("#order").select_option(order)
    values = [every_card[name][key] for name in tab.evaluate("suite.found()")]
    assert values == sorted(values, reverse=True)


@needs_browser
def test_only_rows_in_view_exist_and_every_row_can_be_reached(visit, page):
    tab = visit(page)
    listed = tab.evaluate("suite.found()")
    rows = tab.locator("#found-features .row")
    assert rows.count() < len(listed)
    tab.locator("#found-features").evaluate("box => box.scrollTo(0, box.scrollHeight)")
    tab.locator("#found-features").get_by_text(listed[-1], exact=True).click()
    assert listed[-1] in tab.locator("#card .facts").inner_text()
    tab.keyboard.press("ArrowUp")
    assert listed[-2] in tab.locator("#card .facts").inner_text()


@needs_browser
def test_a_neighbour_leads_to_its_card(visit, page, card):
    tab = visit(page)
    found(tab, "mlp_out.1/3")
    tab.locator("#found-features .row").click()
    tab.locator("#card .links button").first.click()
    assert card["nearest"]["decoder"][0]["feature"] in tab.locator("#card .facts").inner_text()


@needs_browser
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(visit, card, record, text):
    rows = [{"feature": "mlp_out.1/1", "label": text, "cosine": 0.5}]
    passages = [{"tokens": [text, "b"], "values": [1.0, 0.0], "peak": 0}]
    hostile = card | {
        "label": text,
        "model": text,
        "promoted": [[text, 1.0]],
        "examples": passages,
        "nearest": {"decoder": rows, "encoder": rows, "layers": []},
    }
    tab = visit(feature_page(hostile))
    assert tab.locator(".example").first.text_content() == f"{readable(text)}b"
    assert tab.locator("h2 bdi").text_content() == readable(text)
    assert tab.title() == f"mlp_out.1/3: {readable(text)}"
    made = "document.querySelectorAll('img, iframe, a, #card b, #card i:not(.scored i)').length"
    assert tab.evaluate(made) == 0
    texts = {key: [text] * len(record[key]) for key in ("vocabulary", "labels")}
    tab = visit(suite_page(record | texts, title=text))
    found(tab, "mlp_out.1/3")
    tab.locator("#found-features .row").click()
    assert tab.locator("#card h2 bdi").text_content() == readable(text)
    assert tab.locator("#found-features bdi").text_content() == readable(text)
    assert tab.locator("h1").text_content() == text.replace("\r", "\n")
    assert tab.evaluate(made) == 0
    assert tab.evaluate("document.scripts.length") == 3


def test_no_character_that_moves_a_line_is_left():
    seen = readable("".join(map(chr, range(0x20))) + "\x7f\x85\u202e\u2066\u2028")
    assert not any(ord(c) < 0x20 or c in "\x7f\x85\u202e\u2066\u2028" for c in seen)
    assert readable(" the 中文 עברית") == " the 中文 עברית"


def test_the_pages_name_no_address_and_are_the_same_each_time(card, record, page):
    for html in (page, feature_page(card)):
        assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", html)
        assert "default-src 'none'" in html
    assert suite_page(copy.deepcopy(record), title="Toy suite") == page
    assert feature_page(copy.deepcopy(card)) == feature_page(card)


def test_a_number_that_is_not_finite_is_refused(card):
    with pytest.raises(ValueError, match="not JSON compliant"):
        feature_page(card | {"density": float("nan")})


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_features_and_suites_are_accessible(visit, violations, card, page, scheme):
    for html in (feature_page(card), page):
        tab = visit(html)
        tab.emulate_media(color_scheme=scheme)
        assert violations(tab) == []
    found(tab, "the")
    assert violations(tab) == []


@needs_browser
def test_pages_of_features_lead_to_the_graph_of_the_run(visit, record, card):
    links = RunLinks(
        graph="../graph.html",
        nodes={"mlp_out.1/3": ["mlp_out.1/3@5", "mlp_out.1/3@2"]},
        suite="suite.html",
    )
    nodes = ["../graph.html#node=mlp_out.1%2F3%405", "../graph.html#node=mlp_out.1%2F3%402"]
    hrefs = "all => all.map(a => a.getAttribute('href'))"
    tab = visit(feature_page(card, links))
    among = "suite.html#feature=mlp_out.1%2F3"
    assert tab.locator("#card a").evaluate_all(hrefs) == [*nodes, among]
    tab = visit(suite_page(record, title="Toy", links=links))
    tab.locator("#search").fill("mlp_out.1/3")
    tab.keyboard.press("Enter")
    assert tab.locator("#card a").evaluate_all(hrefs)[:2] == nodes
    tab.locator("#search").fill("mlp_out.1/4")
    tab.keyboard.press("Enter")
    assert "Not in the graph" in tab.locator("#card").inner_text()


@needs_browser
def test_the_list_of_features_names_its_active_row_only_where_it_is_there(visit, page):
    tab = visit(page)
    box = tab.locator("#found-features")
    assert box.get_attribute("aria-activedescendant") is None
    box.focus()
    tab.keyboard.press("ArrowDown")
    active = box.get_attribute("aria-activedescendant")
    assert tab.locator(f"#{active}").get_attribute("aria-selected") == "true"
    box.evaluate("box => { box.scrollTop = box.scrollHeight; }")
    tab.locator("#found-features:not([aria-activedescendant])").wait_for()


def test_pages_call_features_as_they_are_told(record, card):
    names = {
        "mlp_out.1/3": "mine",
        "mlp_out.0/0": "first",
        card["nearest"]["decoder"][0]["feature"]: "near",
    }
    changed = called(card, names)
    assert changed["label"] == "mine"
    assert changed["nearest"]["decoder"][0]["label"] == "near"
    assert changed["nearest"]["decoder"][1] == card["nearest"]["decoder"][1]
    suite = called_in_suite(record, names)
    differ = [
        i
        for i, pair in enumerate(zip(suite["labels"], record["labels"], strict=True))
        if len({*pair}) > 1
    ]
    assert differ[0] == 0
    assert len(differ) == 3
