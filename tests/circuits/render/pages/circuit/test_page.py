"""The page in a real browser, offline: what it shows, what it survives, what it weighs."""

import re

import networkx as nx
import numpy as np
import pytest

from circuits.comparison import differences
from circuits.graph import Node, ordered
from circuits.render.pages.circuit.compare_page import comparison_page
from circuits.render.pages.circuit.document import MAX_NODES
from circuits.render.pages.circuit.page import page, trimmed
from circuits.render.words import readable
from tests.circuits import synthetic
from tests.circuits.browser import needs_browser

MEGABYTE = 1_000_000

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    '<a href="javascript:alert(1)">href</a>',
    "{{ 7 * 7 }} ${alert(1)}",
    "复数名词 <b>주어</b>",
    "\u2028line\u2029 separators",
    "עברית <i>mixed</i> العربية",
    "-->]]><svg onload=alert(1)>",
]


@pytest.fixture(scope="module")
def sample():
    return synthetic.circuit(60)


@pytest.fixture(scope="module")
def sample_page(sample):
    return page(
        sample,
        cards=synthetic.cards(sample),
        verification=synthetic.verification(sample),
        ablations=synthetic.ablations(),
    )


def click_node(tab, key):
    at = tab.evaluate("key => circuit.position(key)", key)
    tab.mouse.click(at["x"], at["y"])


def features(graph):
    return [node for node in ordered(graph) if node.kind == "feature"]


@needs_browser
def test_a_click_opens_the_card_of_that_node(visit, sample, sample_page):
    tab = visit(sample_page)
    tab.locator("#tab-check").click()
    for node in features(sample)[:3]:
        click_node(tab, str(node))
        panel = tab.locator("#panel-node").inner_text()
        assert tab.evaluate("circuit.selected()") == str(node)
        assert str(node) in panel
        assert "Promotes" in panel
        assert "Top examples" in panel


@needs_browser
def test_the_card_speaks_of_support_with_the_sign_flipped(visit, sample, sample_page):
    tab = visit(sample_page)
    node = next(n for n in features(sample) if sample.nodes[n]["effect"] < 0)
    tab.evaluate("key => circuit.select(key)", str(node))
    panel = tab.locator("#panel-node")
    assert "supports “are”" in panel.inner_text()
    shown = panel.locator(".figures dd").nth(1).inner_text()
    assert float(shown) == pytest.approx(-sample.nodes[node]["effect"], rel=0.01)


@needs_browser
def test_what_a_divergence_rises_with_supports(visit):
    graph = synthetic.circuit(20)
    graph.graph["metric"] = "kl"
    tab = visit(page(graph, verification=synthetic.verification(graph)))
    node = next(n for n in features(graph) if graph.nodes[n]["effect"] > 0)
    tab.evaluate("key => circuit.select(key)", str(node))
    panel = tab.locator("#panel-node")
    assert "supports what the clean run predicts" in panel.inner_text()
    shown = panel.locator(".figures dd").nth(1).inner_text()
    assert float(shown) == pytest.approx(graph.nodes[node]["effect"], rel=0.01)


@needs_browser
def test_edges_that_act_on_their_target_keep_their_sign(visit):
    graph = synthetic.circuit(20)
    graph.graph["edge_units"] = "pre-activation of the target"
    source, target, weight = next(iter(graph.edges(data="weight")))
    tab = visit(page(graph))
    tab.evaluate("key => circuit.select(key)", str(target))
    row = tab.locator(f"#panel-node .links button[title='{source}']")
    shown = row.locator(".number").first.inner_text().replace("−", "-")
    assert float(shown) == pytest.approx(weight, rel=0.01)
    assert "raises or lowers its target" in tab.locator("#legend").inner_text()


@needs_browser
def test_a_node_without_exact_effect_says_so(visit, sample, sample_page):
    tab = visit(sample_page)
    node = next(n for n in features(sample) if sample.nodes[n]["exact"] is None)
    tab.evaluate("key => circuit.select(key)", str(node))
    assert "not verified" in tab.locator("#panel-node").inner_text()


@needs_browser
def test_inputs_and_outputs_are_listed_and_lead_on(visit, sample, sample_page):
    tab = visit(sample_page)
    node = max(features(sample), key=sample.in_degree)
    tab.evaluate("key => circuit.select(key)", str(node))
    panel = tab.locator("#panel-node")
    assert f"Inputs ({sample.in_degree(node)})" in panel.inner_text()
    assert f"Outputs ({sample.out_degree(node)})" in panel.inner_text()
    panel.locator(".links button").first.click()
    assert tab.evaluate("circuit.selected()") in {str(n) for n in sample.successors(node)}


@needs_browser
def test_reload_keeps_the_selection(visit, sample, sample_page):
    tab = visit(sample_page)
    key = str(features(sample)[4])
    tab.evaluate("key => circuit.select(key)", key)
    tab.reload()
    assert tab.evaluate("circuit.selected()") == key
    assert key in tab.locator("#panel-node").inner_text()


@needs_browser
@pytest.mark.parametrize("by", ["label", "id", "token"])
def test_search_finds_and_enter_selects(visit, sample, sample_page, by):
    tab = visit(sample_page)
    node = next(n for n in features(sample) if sample.nodes[n]["label"])
    words = {"label": sample.nodes[node]["label"], "id": str(node), "token": "cabinet"}[by]
    tab.keyboard.press("/")
    tab.keyboard.type(words)
    found = tab.locator("#found [role=option]")
    assert found.count() > 0
    assert by == "token" or words in found.all_inner_texts()[0]
    tab.keyboard.press("Enter")
    chosen = Node.parse(tab.evaluate("circuit.selected()"))
    assert {
        "label": sample.nodes[chosen]["label"] == words,
        "id": chosen == node,
        "token": sample.nodes[chosen]["token"] == " cabinet",
    }[by]


@needs_browser
def test_a_search_without_result_says_so_and_escape_clears_it(visit, sample_page):
    tab = visit(sample_page)
    tab.keyboard.press("/")
    tab.keyboard.type("no such feature")
    assert tab.locator("#found").inner_text() == "No node matches."
    tab.keyboard.press("Escape")
    assert not tab.locator("#found").is_visible()
    assert tab.locator("#search").input_value() == ""


@needs_browser
def test_sliders_and_error_switch_say_what_is_shown(visit, sample, sample_page):
    tab = visit(sample_page)
    total = f"of {len(sample)} nodes"
    counts = tab.locator("#counts")
    assert f"showing {len(sample)} {total}" in counts.inner_text()
    tab.locator("#node-count").fill("12")
    shown = set(tab.evaluate("circuit.visible()"))
    assert shown == {str(n) for n in ordered(sample)[:12]} | {"logit/ are"}
    assert f"showing {len(shown)} {total}" in counts.inner_text()
    tab.locator("#edge-count").fill("0")
    assert f"0 of {sample.number_of_edges()} edges" in counts.inner_text()
    tab.locator("#node-count").fill(str(len(sample)))
    tab.locator("#errors").uncheck()
    errors = sum(node.kind == "error" for node in sample)
    assert f"showing {len(sample) - errors} {total}" in counts.inner_text()
    assert f"{errors} error node" in counts.inner_text()


@needs_browser
def test_arrow_keys_follow_the_strongest_edge_and_escape_lets_go(visit, sample, sample_page):
    tab = visit(sample_page)
    node = next(n for n in features(sample) if sample.out_degree(n) and sample.in_degree(n))
    click_node(tab, str(node))
    tab.keyboard.press("ArrowUp")
    best = max(sample.out_edges(node, data="weight"), key=lambda edge: abs(edge[2]))
    assert tab.evaluate("circuit.selected()") == str(best[1])
    tab.keyboard.press("Escape")
    assert tab.evaluate("circuit.selected()") is None
    tab.keyboard.press("?")
    assert tab.locator("#keys").is_visible()


@needs_browser
def test_the_table_lists_every_node_and_sorts(visit, sample, sample_page):
    tab = visit(sample_page)
    tab.locator("#tab-table").click()
    rows = tab.locator("#panel-table tbody tr")
    assert rows.count() == len(sample)
    tab.get_by_role("button", name="support, estimate").click()
    values = rows.locator("td:nth-child(3)").all_inner_texts()
    numbers = [float(v.replace("−", "-")) for v in values if v != "–"]
    assert numbers == sorted(numbers, reverse=True)
    rows.nth(5).locator("button").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("circuit.selected()") in rows.nth(5).inner_text()


@needs_browser
def test_check_and_ablations_show_the_records(visit, sample_page):
    tab = visit(sample_page)
    tab.locator("#tab-check").click()
    check = tab.locator("#panel-check")
    assert "0.941" in check.inner_text()
    assert "random features" in check.inner_text()
    assert check.locator("svg.chart").count() == 5
    for heading in ("Edges against path patching", "What each node adds", "not found on"):
        assert heading in check.inner_text()
    assert "0.81 to 0.92" in check.locator("tr:has-text('strongest features')").inner_text()
    assert "0.91 to 0.96" in check.locator(".figures").inner_text()
    header = tab.locator("header").inner_text()
    assert "0.90 (0.86 to 0.95), other nodes at their mean" in header
    dashes = check.locator(".keys span:has-text('random features') line").evaluate_all(
        "lines => lines.map((line) => line.getAttribute('stroke-dasharray'))"
    )
    assert len(dashes) == 4, "random features stand in all charts of curves"
    assert len(set(dashes)) == 1, "a row looks the same in all of them"
    tab.locator("#tab-ablations").click()
    ablations = tab.locator("#panel-ablations")
    assert "plural subject off" in ablations.inner_text()
    assert "The keys to the cabinet" in ablations.inner_text()
    assert "56 %" in ablations.inner_text()
    tab.locator("#tab-table").click()
    words = tab.locator("#panels").evaluate("panels => panels.textContent")
    assert not re.search("undefined|NaN|null|object Object", words)


@needs_browser
def test_tabs_without_a_record_are_left_out(visit, sample):
    tab = visit(page(sample))
    assert tab.locator("#tabs button").all_inner_texts() == ["Node", "Pinned", "Table"]


@needs_browser
def test_hostile_texts_stay_text(visit):
    graph = nx.DiGraph(columns=list(HOSTILE), metric=HOSTILE[0], model={"name": HOSTILE[1]})
    for index, text in enumerate(HOSTILE):
        graph.add_node(Node("mlp_out.1", index, index), kind="feature", token=text, label=text,
                       activation=1.0, effect=-1.0 - index, exact=None)  # fmt: skip
    output = Node("logit", "</script><b>x@1</b>")
    graph.add_node(output, kind="logit", effect=None, label="")
    graph.add_edge(Node("mlp_out.1", 0, 0), output, weight=1.0)
    card = {"promoted": [[t, 1.0] for t in HOSTILE], "suppressed": [], "density": None,
            "max_activation": None,
            "examples": [{"tokens": HOSTILE, "values": [1.0] * len(HOSTILE)}]}  # fmt: skip
    run = {**synthetic.ablations()["everything"], "features": HOSTILE}
    run["prompts"] = [{**run["prompts"][0], "clean": text, "answer": text} for text in HOSTILE]
    cards = {f"mlp_out.1/{index}": card for index in range(len(HOSTILE))}
    tab = visit(page(graph, title=HOSTILE[1], ablations={HOSTILE[0]: run}, cards=cards))
    assert tab.title() == HOSTILE[1]
    for index, text in enumerate(HOSTILE):
        click_node(tab, f"mlp_out.1/{index}@{index}")
        assert tab.locator("#panel-node h2 bdi").text_content() == readable(text)
    tab.evaluate("key => circuit.select(key)", str(output))
    for name in ("table", "ablations"):
        tab.locator(f"#tab-{name}").click()
    tab.locator("#search").fill("script")
    made = "document.querySelectorAll('img, iframe, a, #panel b, #panel i:not(.gauge i)').length"
    assert tab.evaluate(made) == 0
    assert tab.evaluate("document.scripts.length") == 7


@needs_browser
def test_line_breaks_and_spaces_of_tokens_can_be_seen(visit):
    graph = nx.DiGraph()
    graph.add_node(Node("mlp_out.0", 1), kind="feature", label="a\nb", effect=-1.0,
                   activation=2.0, exact=None)  # fmt: skip
    card = trimmed(
        {"examples": [{"tokens": [" the", "\n", "中文", "<|im_end|>"], "values": [0, 1, 2, 0]}]}
    )
    tab = visit(page(graph, cards={"mlp_out.0/1": {**card, "density": 0.01, "max_activation": 2}}))
    tab.evaluate("circuit.select('mlp_out.0/1')")
    assert tab.locator(".example").text_content() == " the⏎中文<|im_end|>"
    assert tab.locator("#panel-node h2").text_content() == "a⏎b"


@needs_browser
def test_a_comparison_opens_in_the_same_page(visit):
    a, b = synthetic.circuit(40, seed=1), synthetic.circuit(40, seed=2)
    tab = visit(comparison_page(a, b, differences(a, b), names=("base", "edited")))
    tab.locator("#tab-table").click()
    assert tab.locator("#panel-table tbody tr").count() == len(differences(a, b))
    assert "only in edited" in tab.locator("#legend").inner_text()


@needs_browser
def test_each_row_of_the_check_has_a_stroke_of_its_own(visit, sample):
    record = synthetic.verification(sample)
    row = next(iter(record["curves"]["rows"].values()))
    # As many as `circuits verify` writes where there are MLPs.
    names = [*record["curves"]["rows"], *map(str, range(12))][:12]
    record["curves"]["rows"] = dict.fromkeys(names, row)
    record["curves"]["areas"] = {}
    tab = visit(page(sample, cards=synthetic.cards(sample), verification=record))
    tab.locator("#tab-check").click()
    strokes = tab.locator("#panel-check svg.chart path[stroke-dasharray]").evaluate_all(
        "paths => paths.map(p => [p.style.stroke, p.getAttribute('stroke-dasharray')])"
    )
    assert len({tuple(stroke) for stroke in strokes}) >= len(names)


@needs_browser
def test_more_nodes_than_a_page_draws_are_announced(visit):
    graph = synthetic.circuit(MAX_NODES + 200, edges_per_node=1)
    tab = visit(page(graph))
    words = tab.locator("#counts").inner_text()
    assert f"showing {MAX_NODES:,} of {len(graph):,} nodes" in words
    assert "the strongest 2,000 nodes are drawn" in words


@pytest.mark.parametrize(("n", "megabytes"), [(300, 3), (1500, 5)])
def test_a_page_with_cards_keeps_within_its_size(n, megabytes):
    graph = synthetic.circuit(n, edges_per_node=7)
    html = page(graph, cards=synthetic.cards(graph))
    assert len(html.encode()) <= megabytes * MEGABYTE


def test_the_same_graph_gives_the_same_page(sample, sample_page):
    again = page(
        synthetic.circuit(60),
        cards=synthetic.cards(sample),
        verification=synthetic.verification(sample),
        ablations=synthetic.ablations(),
    )
    assert again == sample_page


def test_the_page_names_no_address_to_load_from(sample_page):
    own = re.sub(r"<script>/\*\*.*?</script>", "", sample_page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", own)
    assert "default-src 'none'" in sample_page
    assert "sourceMappingURL" not in sample_page


def test_the_graph_is_left_as_it_was(sample):
    before = (dict(sample.nodes(data=True)), list(sample.edges(data=True)), dict(sample.graph))
    page(sample)
    assert before == (dict(sample.nodes(data=True)), list(sample.edges(data=True)), sample.graph)


def test_numpy_numbers_are_plain_numbers():
    graph = nx.DiGraph(n_prompts=np.int64(3), clean_metric=np.float32(1.5))
    graph.add_node(Node("mlp_out.0", 1), kind="feature", label="", effect=np.float32(-1.5),
                   activation=np.float64(2), exact=np.float32(0.5))  # fmt: skip
    assert '"support":1.5' in page(graph)


def test_a_number_that_is_not_finite_is_refused():
    graph = nx.DiGraph()
    graph.add_node(Node("mlp_out.0", 1), kind="feature", label="", effect=-1.0,
                   activation=float("nan"), exact=None)  # fmt: skip
    with pytest.raises(ValueError, match="not JSON compliant"):
        page(graph)


def test_long_examples_are_cut_around_their_peak():
    values = [0.0] * 500
    values[300] = 7.123456
    (example,) = trimmed({"examples": [{"tokens": ["t"] * 500, "values": values}]})["examples"]
    assert max(example["values"]) == 7.12
    assert example["cut"] == [True, True]
    assert len(example["tokens"]) == len(example["values"]) < 60


def test_an_empty_graph_has_a_page():
    assert "Feature circuit" in page(nx.DiGraph())


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_is_accessible(visit, violations, sample_page, scheme):
    """In the dark the colours alone are looked at: the rest is as in the light."""
    tab = visit(sample_page)
    tab.emulate_media(color_scheme=scheme)
    rules = ("color-contrast",) if scheme == "dark" else ()
    assert violations(tab, *rules) == []
    tab.evaluate("circuit.select(circuit.visible()[3])")
    tab.locator("body").press("p")
    for name in ("pinned", "check", "ablations", "table", "node"):
        tab.locator(f"#tab-{name}").click()
        assert violations(tab, *rules) == []
    tab.locator("#sites summary").click()
    assert violations(tab, *rules) == []
    tab.keyboard.press("Escape")
    for key in ("?", "Escape", "e"):
        tab.locator("body").press(key)
        assert violations(tab, *rules) == []


@needs_browser
def test_a_comparison_is_accessible(visit, violations):
    a, b = synthetic.circuit(40, seed=1), synthetic.circuit(40, seed=2)
    tab = visit(comparison_page(a, b, differences(a, b), names=("base", "edited")))
    assert violations(tab) == []
    tab.locator("#tab-table").click()
    assert violations(tab) == []
