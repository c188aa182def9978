"""What a person does with the page in a real browser: pin, group, name, undo, keep, take away."""

import json

import networkx as nx
import pytest

from circuits.comparison import differences
from circuits.edits.node_files import read_nodes
from circuits.graph import Node, ordered
from circuits.render.pages.circuit.compare_page import comparison_page
from circuits.render.pages.circuit.document import groups_on_page
from circuits.render.pages.circuit.page import page
from circuits.saved_state import as_json, read_state
from hooked_qwen.percents import percent
from tests.circuits import synthetic
from tests.circuits.browser import needs_browser

pytestmark = needs_browser


@pytest.fixture(scope="module")
def sample():
    return synthetic.circuit(60)


@pytest.fixture(scope="module")
def sample_page(sample):
    return page(sample, cards=synthetic.cards(sample), verification=synthetic.verification(sample))


def features(graph):
    return [node for node in ordered(graph) if node.kind == "feature"]


def select(tab, key):
    tab.evaluate("key => circuit.select(key)", str(key))


def state(tab):
    return tab.evaluate("circuit.state()")


def pin(tab, *keys):
    for key in keys:
        select(tab, key)
        tab.locator("body").press("p")


def group(tab, name):
    tab.locator("body").press("g")
    tab.locator("#ask-text").fill(name)
    tab.keyboard.press("Enter")


def members(graph, n=3):
    """Strong features that have edges."""
    return [node for node in features(graph) if graph.degree(node) > 3][:n]


def test_pinned_nodes_survive_a_reload_and_a_lost_address(visit, sample, sample_page):
    tab = visit(sample_page)
    keys = [str(node) for node in members(sample)]
    pin(tab, *keys)
    assert state(tab)["pinned"] == keys
    tab.reload()
    assert state(tab)["pinned"] == keys
    tab.goto(tab.url.split("#")[0])
    assert state(tab)["pinned"] == keys


def test_an_address_that_is_sent_on_brings_the_state(visit, browser, sample, sample_page):
    tab = visit(sample_page)
    pin(tab, *members(sample))
    group(tab, "plural")
    kept, address = state(tab), tab.url
    elsewhere = browser.new_context(offline=True)
    other = elsewhere.new_page()
    other.goto(address)
    assert other.evaluate("circuit.state()") == kept
    elsewhere.close()


def test_what_is_kept_belongs_to_its_graph(visit, sample, sample_page):
    tab = visit(sample_page)
    pin(tab, *members(sample))
    other = visit(page(synthetic.circuit(60, seed=3)))
    assert state(other)["pinned"] == []


def test_a_group_is_one_box_whose_edges_are_summed(visit, sample, sample_page):
    tab = visit(sample_page)
    chosen = members(sample)
    pin(tab, *chosen)
    group(tab, "plural")
    tab.locator("#edge-count").fill(str(sample.number_of_edges()))
    drawn = tab.evaluate("circuit.drawn()")
    assert "group/plural" in drawn
    assert not {str(node) for node in chosen} & set(drawn)
    sums: dict[tuple[str, str], float] = {}
    for source, target, weight in sample.edges(data="weight"):
        ends = tuple("group/plural" if n in chosen else str(n) for n in (source, target))
        if ends[0] != ends[1]:
            sums[ends] = sums.get(ends, 0.0) - weight
    lines = tab.evaluate("circuit.lines()")
    assert {(e["source"], e["target"]) for e in lines} == set(sums)
    for edge in lines:
        assert edge["support"] == pytest.approx(sums[edge["source"], edge["target"]])
    card = tab.locator("#panel-node").inner_text()
    assert "Members (3)" in card
    tab.get_by_role("button", name="Open", exact=True).click()
    assert {str(node) for node in chosen} <= set(tab.evaluate("circuit.drawn()"))


def test_a_box_on_a_comparison_has_the_sums_of_both(visit):
    a, b = synthetic.circuit(40, seed=1), synthetic.circuit(40, seed=1)
    tab = visit(comparison_page(a, b, differences(a, b), names=("base", "edited")))
    chosen = members(a, 2)
    pin(tab, *chosen)
    group(tab, "both")
    total = f"{-sum(a.nodes[node]['effect'] for node in chosen):.3g}".replace("-", "−")
    shown = tab.locator("#panel-node .figures dd").all_inner_texts()
    assert [text.lstrip("+") for text in shown[:2]] == [total.lstrip("+")] * 2


def test_undo_and_redo_go_through_all_that_was_done(visit, sample, sample_page):
    tab = visit(sample_page)
    chosen = members(sample)
    seen = [state(tab)]
    pin(tab, *chosen[:2])
    group(tab, "plural")
    select(tab, chosen[2])
    tab.locator("body").press("e")
    tab.locator("#ask-text").fill("verbs <b>of</b> being")
    tab.keyboard.press("Enter")
    last = state(tab)
    for _ in range(4):
        tab.locator("body").press("Control+z")
    assert state(tab) == seen[0]
    for _ in range(4):
        tab.locator("body").press("Control+Shift+Z")
    assert state(tab) == last


def test_an_edited_label_is_the_features_at_every_position(visit):
    graph = nx.DiGraph(columns=["a", "b"])
    for position in range(2):
        graph.add_node(Node("mlp_out.1", 7, position), kind="feature", label="guess", effect=-1.0,
                       activation=1.0, exact=None)  # fmt: skip
    tab = visit(page(graph))
    select(tab, "mlp_out.1/7@0")
    tab.locator("body").press("e")
    tab.locator("#ask-text").fill("nouns <i>")
    tab.keyboard.press("Enter")
    assert state(tab)["labels"] == {f"mlp_out.1/7@{p}": "nouns <i>" for p in range(2)}
    select(tab, "mlp_out.1/7@1")
    assert tab.locator("#panel-node h2").text_content() == "nouns <i>"
    tab.keyboard.press("/")
    tab.keyboard.type("nouns")
    assert tab.locator("#found [role=option]").count() == 2


def test_a_note_is_kept(visit, sample, sample_page):
    tab = visit(sample_page)
    (node,) = members(sample, 1)
    select(tab, node)
    tab.locator(".note-field textarea").fill("fires on nouns\nnot on verbs")
    tab.keyboard.press("Tab")
    tab.reload()
    assert tab.locator(".note-field textarea").input_value() == "fires on nouns\nnot on verbs"


def test_a_click_right_after_a_note_is_not_lost(visit, sample, sample_page):
    tab = visit(sample_page)
    (node,) = members(sample, 1)
    select(tab, node)
    tab.locator(".note-field textarea").fill("nouns")
    tab.locator("#panel-node .actions button", has_text="Pin").click()
    assert state(tab)["notes"] == {str(node): "nouns"}
    assert state(tab)["pinned"] == [str(node)]
    assert tab.evaluate("document.activeElement.textContent") == "Unpin"
    tab.locator("body").press("Control+z")
    tab.locator("body").press("Control+z")
    assert tab.locator(".note-field textarea").input_value() == ""


def test_a_saved_state_is_read_by_the_page_and_by_edits(visit, sample, sample_page, tmp_path):
    tab = visit(sample_page)
    chosen = members(sample)
    pin(tab, *chosen)
    group(tab, "plural")
    kept = state(tab)
    tab.locator("#export summary").click()
    with tab.expect_download() as saved:
        tab.get_by_role("button", name="Save state").click()
    path = tmp_path / "state.json"
    saved.value.save_as(path)
    assert json.loads(path.read_text(encoding="utf-8")) == kept
    assert kept["schema"] == "circuits-state/1"
    assert set(read_nodes(path, ["plural"])) == set(chosen)
    assert set(read_state(path, sample).groups["plural"]) == set(chosen)
    assert as_json(read_state(path, sample)) == kept
    for _ in range(4):
        tab.locator("body").press("Control+z")
    assert state(tab)["groups"] == {}
    tab.locator("#state-file").set_input_files(path)
    tab.locator("#told", has_text="Loaded state.json").wait_for()
    assert state(tab) == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "not JSON"),
        ('{"schema": "circuits-state/9"}', "expected a state with schema circuits-state/1"),
        ('{"schema": "circuits-state/1", "pinned": ["mlp_out.99/1"]}', "mlp_out.99/1"),
    ],
)
def test_a_state_that_does_not_fit_is_told_in_one_line(visit, sample_page, tmp_path, text, said):
    path = tmp_path / "state.json"
    path.write_text(text, encoding="utf-8")
    tab = visit(sample_page)
    tab.locator("#state-file").set_input_files(path)
    tab.locator("#told:not([hidden])").wait_for()
    assert said in tab.locator("#told").inner_text()
    assert state(tab)["pinned"] == []


def test_the_score_is_the_share_that_pinned_nodes_carry(visit, sample, sample_page):
    tab = visit(sample_page)
    chosen = members(sample)
    pin(tab, *chosen)
    effect = {n: abs(e) for n, e in sample.nodes(data="effect") if e is not None}
    into = {u: abs(w) for u, v, w in sample.edges(data="weight") if v.kind == "logit"}
    tab.locator("#tab-pinned").click()
    shown = tab.locator("#panel-pinned .score").inner_text()
    shares = [sum(part.get(n, 0.0) for n in chosen) / sum(part.values()) for part in (effect, into)]
    numbers = [float(word) for word in shown.split() if word.replace(".", "").isdigit()]
    assert numbers == [float(percent(share)[:-1]) for share in shares]


def test_pinned_nodes_alone_can_be_dragged_and_have_weights_on_edges(visit, sample, sample_page):
    tab = visit(sample_page)
    source, target, _ = max(
        ((u, v, abs(w)) for u, v, w in sample.edges(data="weight") if u.kind == v.kind),
        key=lambda edge: edge[2],
    )
    pin(tab, source, target)
    tab.locator("body").press("o")
    tab.wait_for_timeout(500)  # the canvas has another width, and is fitted once it is still
    assert set(tab.evaluate("circuit.drawn()")) == {str(source), str(target)}
    picture = tab.evaluate("circuit.svg()")
    assert f"{sample.edges[source, target]['weight']:.3g}".lstrip("-") in picture
    before = apart(tab, source, target)
    at = tab.evaluate("key => circuit.position(key)", str(source))
    tab.mouse.move(at["x"], at["y"])
    tab.mouse.down()
    tab.mouse.move(at["x"] + 60, at["y"], steps=4)
    tab.mouse.up()
    moved = apart(tab, source, target)
    assert moved == pytest.approx(before + 60, abs=8)
    tab.reload()
    tab.wait_for_timeout(500)
    scale = tab.evaluate("circuit.scale()")
    assert apart(tab, source, target) == pytest.approx(moved * scale / 1.5, abs=4)


def test_dragged_places_are_undone_saved_and_loaded(visit, sample, sample_page, tmp_path):
    tab = visit(sample_page)
    first, second = members(sample)[:2]
    pin(tab, first, second)
    group(tab, "pair")
    assert "places" not in state(tab)
    tab.locator("body").press("o")
    tab.wait_for_timeout(300)
    at = tab.evaluate("circuit.position('group/pair')")
    tab.mouse.move(at["x"], at["y"])
    tab.mouse.down()
    tab.mouse.move(at["x"] + 40, at["y"] + 30, steps=4)
    tab.mouse.up()
    kept = state(tab)
    assert list(kept["places"]) == ["group/pair"]
    tab.locator("body").press("Control+z")
    assert "places" not in state(tab)
    file = tmp_path / "state.json"
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert as_json(read_state(file, sample))["places"] == kept["places"]
    tab.locator("#state-file").set_input_files(file)
    tab.locator("#told", has_text="Loaded").wait_for()
    assert state(tab) == kept


def apart(tab, a, b):
    """How far right `a` stands of `b`, px."""
    left, right = (tab.evaluate("key => circuit.position(key)", str(n))["x"] for n in (b, a))
    return right - left


def test_a_suggested_group_is_accepted_or_dismissed(visit):
    graph = synthetic.circuit(20)
    alike = features(graph)[:3]
    cards = synthetic.cards(graph)
    for node in alike:
        cards[f"{node.site}/{node.feature}"]["promoted"] = [[" are", 2.0], [" were", 1.0]]
    tab = visit(page(graph, cards=cards))
    tab.locator("#tab-pinned").click()
    row = tab.locator("#panel-pinned .cards li", has_text="“ are”")
    row.get_by_role("button", name="Accept").click()
    (found,) = state(tab)["groups"].values()
    assert {str(node) for node in alike} <= set(found)
    tab.locator("body").press("Control+z")
    row.get_by_role("button", name="Dismiss").click()
    assert row.count() == 0
    assert state(tab)["groups"] == {}


def test_suggested_groups_say_what_they_do_under_ablation_and_whether_that_is_known(visit):
    graph = synthetic.circuit(40)
    by_label = [n for n in features(graph) if graph.nodes[n]["effect"] is not None]
    cards = synthetic.cards(graph)
    for node, token in zip(by_label, [" are", " are", " were", " were"], strict=False):
        cards[f"{node.site}/{node.feature}"]["promoted"] = [[token, 2.0]]
    groups = groups_on_page(graph, cards)
    assert len(groups) >= 2
    check = synthetic.verification(graph)
    tab = visit(page(graph, cards=cards, verification=check))
    tab.locator("#tab-pinned").click()
    panel = tab.locator("#panel-pinned")
    assert "not ablated yet: circuits verify" in panel.inner_text()
    assert panel.locator(".measured").all_text_contents() == ["not ablated yet"] * len(groups)
    weak = [{"members": list(map(str, g)), "effect": 0.01, "sum": 0.0, "interval": None}
            for g in groups]  # fmt: skip
    weak[-1] |= {"effect": -2.5, "interval": [-3.0, -2.0], "sum": -1.25}
    tab = visit(page(graph, cards=cards, verification=check | {"groups": weak}))
    tab.locator("#tab-pinned").click()
    panel = tab.locator("#panel-pinned")
    assert "not ablated" not in panel.inner_text()
    row = panel.locator(".cards li").first
    text = row.inner_text()
    assert "Ablated together: support +2.5 (95 % +2 to +3); one by one, in sum: +1.25" in text
    row.get_by_role("button", name="Accept").click()
    (found,) = state(tab)["groups"].values()
    assert set(found) == set(map(str, groups[-1]))


def test_hostile_names_of_groups_stay_text(visit, sample, sample_page):
    tab = visit(sample_page)
    for node, name in zip(
        members(sample), ["<img src=x onerror=alert(1)>", "constructor", "中文"], strict=True
    ):
        pin(tab, node)
        group(tab, name)
    assert len(state(tab)["groups"]) == 3
    tab.locator("#tab-pinned").click()
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    assert "<img" in tab.locator("#panel-pinned").inner_text()
    assert "&lt;img" in tab.evaluate("circuit.svg()")
