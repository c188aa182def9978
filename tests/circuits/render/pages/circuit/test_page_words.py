"""What the page says and where it leads: clicks, links, comparisons, histograms."""

import json
import re

import networkx as nx
import pytest

from circuits.comparison import differences
from circuits.features.labels import Label, labelled
from circuits.graph import Node
from circuits.render.figure.drawing import picture
from circuits.render.figure.latex_caption import latex_caption
from circuits.render.pages.circuit.compare_page import comparison_page
from circuits.render.pages.circuit.page import page
from circuits.render.pages.links import Links
from circuits.render.stance_words import stance_words
from tests.circuits import synthetic
from tests.circuits.browser import needs_browser
from tests.circuits.render.pages.circuit.test_page import features


@pytest.fixture(scope="module")
def sample():
    return synthetic.circuit(60)


def drawn(graph, **parts):
    return page(graph, cards=synthetic.cards(graph), **parts)


@needs_browser
def test_a_node_clicked_in_the_check_panel_shows_its_card(visit, sample):
    tab = visit(drawn(sample, verification=synthetic.verification(sample)))
    key = synthetic.verification(sample)["each_adds"]["nodes"][2]["id"]
    tab.locator("#tab-check").click()
    tab.locator(f"#panel-check button.node[title='{key}']").first.click()
    assert tab.evaluate("circuit.selected()") == key
    assert tab.locator("#panel-node").is_visible()
    assert key in tab.locator("#panel-node").inner_text()
    tab.locator("#tab-check").click()
    tab.locator("#panel-check svg.chart circle").first.click()
    assert tab.locator("#panel-node").is_visible()


@needs_browser
def test_ablated_nodes_are_listed_by_label_and_lead_to_their_card(visit, sample):
    node = next(n for n in features(sample) if sample.nodes[n]["label"])
    run = {**synthetic.ablations()["everything"], "features": [str(node), "mlp_out.9/1"]}
    links = Links(left={"mine": "ablations/mine/graph.html"})
    tab = visit(drawn(sample, ablations={"mine": run, "other": run}, links=links))
    tab.locator("#tab-ablations").click()
    panel = tab.locator("#panel-ablations")
    entry = panel.locator("ul.nodes button").first
    assert sample.nodes[node]["label"] in entry.inner_text()
    assert "mlp_out.9/1" in panel.locator("ul.nodes").first.inner_text()
    left = panel.get_by_role("link", name="the graph that is left")
    assert left.get_attribute("href") == "ablations/mine/graph.html"
    entry.click()
    assert tab.evaluate("circuit.selected()") == str(node)
    assert tab.locator("#panel-node").is_visible()


@needs_browser
def test_a_feature_leads_to_its_own_page_or_to_its_place_among_all(visit, sample):
    first, second = features(sample)[:2]
    links = Links(
        suite="features/suite.html",
        features={f"{first.site}/{first.feature}": "features/one.html"},
        before="../../graph.html",
    )
    tab = visit(drawn(sample, links=links))
    head = tab.locator("header #links a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    assert head == ["../../graph.html", "features/suite.html"]
    for node, href in (
        (first, "features/one.html"),
        (second, f"features/suite.html#feature={second.site}%2F{second.feature}"),
    ):
        tab.evaluate("key => circuit.select(key)", str(node))
        link = tab.locator("#panel-node").get_by_role("link", name="page of this feature")
        assert link.get_attribute("href") == href


@needs_browser
def test_a_persons_label_says_whose_it_is(visit, sample):
    node = features(sample)[0]
    key = f"{node.site}/{node.feature}"
    tab = visit(drawn(labelled(sample, {key: Label(text="<b>mine</b>", by="Ann")})))
    tab.evaluate("key => circuit.select(key)", str(node))
    panel = tab.locator("#panel-node")
    assert panel.locator("h2").inner_text() == "<b>mine</b>"
    assert "called so by Ann" in panel.inner_text()


@needs_browser
def test_the_histogram_marks_the_current_value(visit, sample):
    node = next(n for n in features(sample) if sample.nodes[n]["activation"])
    graph = sample.copy()
    graph.nodes[node]["activation"] = 4.0
    counts = [1, 0, 5, 9]
    card = {**synthetic.cards(graph)[f"{node.site}/{node.feature}"],
            "histogram": {"first": 0, "per_doubling": 1, "counts": counts}}  # fmt: skip
    tab = visit(page(graph, cards={f"{node.site}/{node.feature}": card}))
    tab.evaluate("key => circuit.select(key)", str(node))
    figure = tab.locator(".histogram")
    heights = figure.locator("rect").evaluate_all("all => all.map(r => +r.getAttribute('height'))")
    assert [h / max(heights) for h in heights] == pytest.approx([n / 9 for n in counts])
    here = float(figure.locator("line.here").get_attribute("x1"))
    assert here == pytest.approx(320 * 2 / 4)
    label = figure.locator("svg").get_attribute("aria-label")
    assert label == "Activations from 1 to 16 on 15 tokens; here 4"


def shifted(graph, by):
    """The same circuit in a prompt that is `by` tokens longer at its beginning."""
    moved = type(graph)(**{**graph.graph, "columns": ["x"] * by + graph.graph["columns"]})
    new = {n: n if n.position is None else n._replace(position=n.position + by) for n in graph}
    moved.add_nodes_from((new[n], data) for n, data in graph.nodes(data=True))
    moved.add_edges_from((new[u], new[v], data) for u, v, data in graph.edges(data=True))
    return moved


@needs_browser
def test_a_comparison_says_positions_of_the_graphs_that_have_them(visit, sample):
    b = shifted(sample, 3)
    only_a = next(n for n in features(sample))
    b.remove_node(only_a._replace(position=only_a.position + 3))
    only_b = Node("mlp_out.2", 9999, 4)
    b.add_node(only_b, kind="feature", effect=-9.0, exact=None, activation=1.0, label="new",
               token="x")  # fmt: skip
    cards = synthetic.cards(sample)
    html = comparison_page(sample, b, differences(sample, b), names=("short", "long"), cards=cards)
    tab = visit(html)
    tab.locator("#tab-table").click()
    keys = tab.locator("#panel-table tbody span.mono").all_inner_texts()
    allowed = {str(only_a), str(only_b)} | {str(n) for n in sample if n.position is None}
    allowed |= {
        f"{n} | @{n.position + 3}" for n in sample if n.position is not None and n != only_a
    }
    assert set(keys) == allowed
    tab.locator("#panel-table button >> text=new").first.click()
    tab.locator("#tab-node").click()
    assert str(only_b) in tab.locator("#panel-node").inner_text()
    some = next(n for n in features(sample) if n != only_a)
    tab.evaluate("key => circuit.select(key)", str(some._replace(position=some.position + 3)))
    assert "Top examples" in tab.locator("#panel-node").inner_text()


CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (name) => {
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
    context.fillRect(0, 0, 1, 1);
    const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const inks = ["supports", "opposes", "neutral", "only-a", "only-b", "ablated", "changed", "same",
    "soft", "mute", "ink", "focus"];
  return inks.flatMap((ink) => ["paper", "wash"].map((ground) => {
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    return [`${ink} on ${ground}`, (high + 0.05) / (low + 0.05)];
  }));
}"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_that_text_has_can_be_read(visit, sample, scheme):
    tab = visit(page(sample))
    tab.emulate_media(color_scheme=scheme)
    found = dict(tab.evaluate(CONTRAST))
    assert len(found) == 24
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}


def said_of(metric, *, label="", answers=None):
    graph = nx.DiGraph(metric=metric, answers=answers)
    graph.add_node(Node("logit", " are"), kind="logit", effect=None, label=label)
    return stance_words(graph)


TWO = {"of": "prompts", "tokens": [[" are", 0.6], [" were", 0.4]], "others": 0, "other_pairs": 5,
       "pairs": [[[" are"], [" is"], 0.6], [[" were"], [" was"], 0.4]]}  # fmt: skip
ONE = {**TWO, "pairs": TWO["pairs"][:1], "other_pairs": 0}


@pytest.mark.parametrize(
    ("said", "supports", "opposes"),
    [
        (said_of("logit-difference", answers=ONE), "supports “are” over “is”",
         "opposes “are” over “is”"),
        (said_of("logit difference", answers=TWO), "supports “are” over “is”, … 6 more", None),
        (said_of("log-probability", answers=ONE), "supports “are”", "opposes “are”"),
        (said_of("logit-difference", answers={"tokens": TWO["tokens"], "others": 1}),
         "supports “are”, … 2 more", None),
        (said_of("logit-difference"), "supports “are”", None),
        (said_of("kl", label="KL from the clean run"), "supports what the clean run predicts",
         "opposes what the clean run predicts"),
        (said_of("feature:mlp_out.1/7@2", label="mlp_out.1/7@2"), "raises mlp_out.1/7@2",
         "lowers mlp_out.1/7@2"),
        (said_of("python:mine", label="mine"), "raises mine", "lowers mine"),
    ],
)  # fmt: skip
def test_the_legend_says_which_tokens_are_supported_or_what_is_raised(said, supports, opposes):
    assert said[0] == supports
    assert opposes in (said[1], None)


@needs_browser
def test_groups_in_a_comparison_are_not_said_to_wait_for_ablation(visit):
    a, b = (synthetic.circuit(40, seed=seed) for seed in (1, 2))
    cards = {name: {**card, "promoted": [[" are", 1.0]]}
             for name, card in [*synthetic.cards(a).items()][:4]}  # fmt: skip
    tab = visit(comparison_page(a, b, differences(a, b), names=("a", "b"), cards=cards))
    tab.locator("#tab-pinned").click()
    panel = tab.locator("#panel-pinned")
    assert panel.get_by_role("button", name="Accept the group").count() >= 1
    assert not re.search("ablated|estimates", panel.inner_text())


def test_no_legend_speaks_of_the_answer(sample):
    record = json.loads(re.search(r'id="data-payload">(.*?)</script>', page(sample))[1])
    assert [group["label"] for group in record["groups"]] == ["supports “are”", "opposes “are”"]
    assert "the answer" not in latex_caption(picture(sample), sample)
