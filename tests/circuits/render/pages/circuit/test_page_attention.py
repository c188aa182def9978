"""Edges, heads and scores of a replacement graph on its page, in a real browser."""

import json
import shutil
import subprocess

import pytest

from circuits.discovery.head_cards import make_head_cards
from circuits.discovery.replacement import discover_replacement
from circuits.discovery.subgraph import subgraph_scores
from circuits.render.pages.assets import HERE as RENDER
from circuits.render.pages.circuit.page import page
from hooked_qwen.percents import percent
from tests.circuits.browser import needs_browser
from tests.circuits.discovery.replaced import analysis, rows_of
from tests.circuits.render.pages.circuit.test_page_state import group, pin, select
from tests.toys import toy_prompts

NODE = shutil.which("node")


@pytest.fixture(scope="module")
def made():
    asked = analysis(rows_of(toy_prompts(n=3), [0]), nodes=20)
    graph = discover_replacement(asked).graph
    heads = make_head_cards(asked, graph)
    return graph, heads, page(graph, heads=heads)


def shown(number):
    """A number as the page writes it."""
    return f"{number:+.3g}".replace("-", "−")


def through_heads(graph):
    """The strongest edge between features that runs through a head."""
    edges = [
        (s, t, d)
        for s, t, d in graph.edges(data=True)
        if d["heads"] and t.kind == s.kind == "feature"
    ]
    return max(edges, key=lambda edge: abs(edge[2]["weight"]))


def card(tab):
    return tab.inner_text("#panel-node")


def open_edge(tab, source, target):
    select(tab, target)
    row = tab.locator("#panel-node li", has=tab.locator(f'button[title="{source}"]'))
    row.locator(".how").last.click()


@needs_browser
def test_an_edge_opens_from_a_nodes_list_with_its_paths_and_factors(made, visit):
    graph, _, html = made
    tab = visit(html)
    source, target, data = through_heads(graph)
    open_edge(tab, source, target)
    assert tab.evaluate("circuit.edge()") == [str(source), str(target)]
    text = card(tab)
    assert shown(data["weight"]) in text
    for head, weight in data["heads"].items():
        row = tab.locator("#panel-node li", has_text=f"head {head}").inner_text()
        assert shown(weight) in row
        factors = data["factors"][head]
        for factor in (factors["prompt"], factors["weights"], factors["pattern"]):
            assert shown(factor).removeprefix("+") in row
    tab.get_by_role("button", name="Back").click()
    assert tab.evaluate("circuit.edge()") is None
    assert tab.evaluate("circuit.selected()") == str(target)


@needs_browser
def test_a_heads_card_says_where_it_looks_and_why_and_leads_on(made, visit):
    graph, heads, html = made
    tab = visit(html)
    first = heads["heads"][0]
    tab.locator("#panel-node button", has_text=f"head {first['head']}").first.click()
    assert tab.evaluate("circuit.head()") == first["head"]
    text, query = card(tab), first["queries"][0]
    assert f"{percent(first['influence'])} of the influence".replace("%", " %") in text
    for key in query["keys"]:
        assert percent(key["pattern"]).replace("%", " %") in text
    for *names, term in query["terms"]:
        assert shown(term) in text
        assert all(name in text for name in names)
    tab.locator(".terms button.part").first.click()
    assert tab.evaluate("circuit.head()") is None
    assert tab.evaluate("circuit.selected()") in {str(node) for node in graph}


@needs_browser
def test_keys_open_the_strongest_input_and_escape_goes_back_step_by_step(made, visit):
    graph, _, html = made
    tab = visit(html)
    _, target, _ = through_heads(graph)
    select(tab, target)
    tab.locator("body").press("i")
    strongest = max(graph.in_edges(target, data="weight"), key=lambda edge: abs(edge[2]))
    assert tab.evaluate("circuit.edge()") == [str(strongest[0]), str(target)]
    tab.locator("body").press("Escape")
    assert tab.evaluate("[circuit.edge(), circuit.selected()]") == [None, str(target)]
    tab.locator("body").press("Escape")
    assert tab.evaluate("circuit.selected()") is None


@needs_browser
def test_a_click_on_a_line_opens_its_edge(made, visit):
    graph, _, html = made
    tab = visit(html)
    lines = tab.evaluate("circuit.lines()")
    box = tab.locator("#network").bounding_box()
    opened = 0
    for line in lines[:6]:
        ends = [tab.evaluate("key => circuit.position(key)", line[e]) for e in ("source", "target")]
        x, y = (sum(end[side] for end in ends) / 2 for side in "xy")
        assert box["x"] < x < box["x"] + box["width"]
        tab.mouse.click(x, y)
        found = tab.evaluate("circuit.edge()")
        opened += found == [line["source"], line["target"]]
        assert found is None or graph.has_edge(*[n for k in found for n in graph if str(n) == k])
    assert opened >= 3


@needs_browser
def test_a_node_says_through_which_heads_it_reads(made, visit):
    graph, _, html = made
    tab = visit(html)
    _, target, _ = through_heads(graph)
    found: dict = {}
    for _, _, data in graph.in_edges(target, data=True):
        sizes = {"direct": data["direct"], "several heads": data["rest"]}
        sizes |= {"other heads": data.get("other_heads", 0.0)}
        sizes |= {f"head {head}": weight for head, weight in data["heads"].items()}
        total = sum(map(abs, sizes.values()))
        for name, size in sizes.items():
            found[name] = found.get(name, 0.0) + data["influence"] * abs(size) / total
    name = max(found, key=found.__getitem__)
    select(tab, target)
    share = percent(found[name] / sum(found.values())).replace("%", " %")
    assert f"{name} {share}" in card(tab)


@needs_browser
def test_a_group_has_the_heads_of_its_members_and_no_sum_of_pre_activations(made, visit):
    graph, _, html = made
    tab = visit(html)
    some = sorted((n for n in graph if n.site == "mlp_out.2" and n.kind == "feature"), key=str)[:3]
    pin(tab, *some)
    group(tab, "last")
    influence = sum(graph.nodes[n]["influence"] for n in some)
    figures = dict(
        zip(
            tab.locator("#panel-node .figures dt").all_inner_texts(),
            tab.locator("#panel-node .figures dd").all_inner_texts(),
            strict=True,
        )
    )
    assert figures["influence"] == shown(influence).removeprefix("+")
    assert figures["pre-activation"] == figures["bias"] == "–"
    direct = total = 0.0
    for source, target, data in graph.edges(data=True):
        if target in some and source not in some:
            parts = [data["direct"], data["rest"], data.get("other_heads", 0.0)]
            size = sum(map(abs, [*parts, *data["heads"].values()]))
            direct += data["influence"] * abs(data["direct"]) / size
            total += data["influence"]
    assert f"direct {percent(direct / total)}".replace("%", " %") in card(tab)


@needs_browser
def test_pinned_features_have_the_scores_that_python_gives(made, visit):
    graph, _, html = made
    tab = visit(html)
    kept = sorted((n for n in graph if n.kind == "feature"), key=str)[:4]
    pin(tab, *kept)
    tab.locator("#tab-pinned").click()
    text = tab.locator(".scores").inner_text()
    for some in (kept, list(graph)):
        scores = subgraph_scores(graph, some)
        for score in (scores.replacement, scores.completeness):
            assert percent(score).replace("%", " %") in text


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_cards_of_edges_and_heads_pass_axe(made, visit, violations, dark):
    graph, _, html = made
    tab = visit(html)
    if dark:
        tab.emulate_media(color_scheme="dark")
    source, target, data = through_heads(graph)
    open_edge(tab, source, target)
    assert violations(tab) == []
    tab.locator("#panel-node button", has_text=f"head {next(iter(data['heads']))}").first.click()
    assert violations(tab) == []


@pytest.mark.skipif(NODE is None, reason="no `node` on the PATH: apt-get install nodejs")
def test_scores_in_the_page_are_pythons_for_any_part(made):
    graph, _, _ = made
    number = {node: i for i, node in enumerate(graph)}
    nodes = [
        {"id": i, "key": str(n), "kind": n.kind, "site": n.site}
        | {"influence": graph.nodes[n].get("influence")}
        for n, i in number.items()
    ]
    edges = [
        {"from": number[s], "to": number[t], "support": w} for s, t, w in graph.edges(data="weight")
    ]
    parts = [[n for n in number if n.kind == "feature"][::every] for every in (1, 2, 3, 7, 100)]
    chosen = [[number[n] for n in part] for part in parts]
    code = f"""
        import {{ subgraphScores }} from "{(RENDER / "circuit/scores.mjs").as_uri()}";
        const [nodes, edges, parts] = {json.dumps([nodes, edges, chosen])};
        console.log(JSON.stringify(parts.map((p) => subgraphScores(nodes, edges, new Set(p)))));
    """
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=code, capture_output=True, text=True, check=True
    )
    for part, found in zip(parts, json.loads(done.stdout), strict=True):
        expected = subgraph_scores(graph, part)
        assert found["replacement"] == pytest.approx(expected.replacement, rel=1e-9)
        assert found["completeness"] == pytest.approx(expected.completeness, rel=1e-9)
