"""How the picture looks in a real browser: on the screen, on paper, and in what is saved."""

import io
import re
import shutil
import subprocess
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from circuits.graph import ordered
from circuits.render.pages.circuit.page import page
from tests.circuits import synthetic
from tests.circuits.browser import needs_browser

pytestmark = needs_browser
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def sample():
    return synthetic.circuit(87)


@pytest.fixture(scope="module")
def sample_page(sample):
    return page(sample, cards=synthetic.cards(sample))


def features(graph):
    return [node for node in ordered(graph) if node.kind == "feature"]


def select(tab, key):
    tab.evaluate("key => circuit.select(key)", str(key))
    tab.evaluate("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")


def saved(tab, name):
    tab.locator("#export summary").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name=name).click()
    return download.value


def luminance(rgb):
    def linear(c):
        return c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4

    return sum(k * linear(c / 255) for k, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("n", [87, 300, 1500])
def test_nothing_is_too_small_or_too_pale_to_be_seen(visit, n):
    tab = visit(page(synthetic.circuit(n)))
    tab.locator("#cells").evaluate("box => box.checked && box.click()")
    radii = tab.evaluate("circuit.visible().map(circuit.radius)")
    assert min(radii) >= 2
    widths = [line["width"] for line in tab.evaluate("circuit.lines()")]
    assert min(widths) >= 1
    for name in ("supports", "opposes"):
        rgb, paper = (
            tab.evaluate("name => circuit.painted(name)", part) for part in (name, "paper")
        )
        assert contrast(rgb, paper) >= 3


def require_room(tab, share):
    """What is drawn lies inside the picture, over a share of its width and of its height."""
    box = tab.locator("#network").bounding_box()
    places = [
        tab.evaluate("key => circuit.position(key)", key)
        for key in tab.evaluate("circuit.visible()")
    ]
    for axis, side in (("x", "width"), ("y", "height")):
        at = [place[axis] for place in places]
        assert max(at) - min(at) >= share * box[side], axis
        assert min(at) >= box[axis]
        assert max(at) <= box[axis] + box[side]


@pytest.mark.parametrize("n", [87, 300])
def test_the_picture_takes_the_room_that_there_is(visit, n):
    tab = visit(page(synthetic.circuit(n)))
    tab.wait_for_timeout(300)
    require_room(tab, 0.7)


def test_a_picture_of_fewer_nodes_takes_the_room_too(visit, sample):
    tab = visit(page(sample))
    before = tab.evaluate("circuit.scale()")
    tab.locator("#node-count").fill("20")
    tab.wait_for_timeout(300)
    require_room(tab, 0.6)
    assert tab.evaluate("circuit.scale()") > before


def test_every_neighbour_of_the_selected_node_is_labelled(visit, sample, sample_page):
    tab = visit(sample_page)
    for node in sorted(features(sample), key=sample.degree, reverse=True)[:3]:
        select(tab, node)
        near = {str(n) for n in (node, *sample.predecessors(node), *sample.successors(node))}
        assert near <= set(tab.evaluate("circuit.labelled()"))


def test_all_tokens_of_a_long_prompt_and_most_nodes_are_named(visit):
    prompt = [f" word{i}" if i % 3 else " a" for i in range(34)]
    graph = synthetic.circuit(87, prompt=prompt)
    tab = visit(page(graph))
    assert tab.locator("#tokens span").count() == 34
    assert tab.locator("#tokens span[hidden]").count() == 0
    named = [node for node in graph if node.kind in {"feature", "logit"}]
    assert len(tab.evaluate("circuit.labelled()")) > 0.8 * len(named)


@pytest.mark.parametrize("width", [1000, 1400])
def test_tokens_are_whole_in_a_row_where_they_have_the_room(visit, width):
    prompt = ["The", " princesses", " beside", " the", " old", " rockets"]
    tab = visit(page(synthetic.circuit(87, prompt=prompt)))
    tab.set_viewport_size({"width": width, "height": 900})
    tab.wait_for_timeout(300)
    spans = tab.locator("#tokens span")
    assert spans.all_text_contents() == prompt
    whole = "all => all.map(s => [s.scrollWidth <= s.clientWidth, s.offsetHeight < 24])"
    assert spans.evaluate_all(whole) == [[True, True]] * 6
    ends = spans.evaluate_all("all => all.map(s => s.getBoundingClientRect().toJSON())")
    assert all(a["right"] < b["left"] for a, b in pairwise(ends))


def test_tokens_that_stand_upright_are_whole(visit):
    prompt = [" extraordinary"[: 4 + i % 11] for i in range(40)]
    spans = visit(page(synthetic.circuit(87, prompt=prompt))).locator("#tokens.upright span")
    assert spans.count() == 40
    assert spans.evaluate_all("all => all.every(s => s.scrollHeight <= s.clientHeight)")


def test_the_svg_is_what_is_seen_with_text_as_text(visit, sample, sample_page):
    tab = visit(sample_page)
    root = ElementTree.fromstring(saved(tab, "Picture as SVG").path().read_text(encoding="utf-8"))
    drawn = {e.get("data-key") for e in root.iter() if e.get("data-key")}
    assert drawn == set(tab.evaluate("circuit.drawn()"))
    edges = root.find(f".//{SVG}g[@class='edges']")
    assert len(edges) == len(tab.evaluate("circuit.lines()"))
    texts = [e.text for e in root.iter(f"{SVG}text")]
    for wanted in ("resid_post.5", "output", " cabinet", "supports “are”"):
        assert wanted in texts
    labels = root.find(f".//{SVG}g[@class='labels']")
    assert sum(e.tag == f"{SVG}text" for e in labels) == len(tab.evaluate("circuit.labelled()"))
    assert len(root.findall(f".//{SVG}rect[@class='band']")) > 1
    box = tab.locator("#network").bounding_box()
    key = str(features(sample)[0])
    (circle,) = (e for e in root.iter(f"{SVG}circle") if e.get("data-key") == key)
    at = tab.evaluate("key => circuit.position(key)", key)
    assert float(circle.get("cx")) == pytest.approx(at["x"] - box["x"], abs=1)
    assert float(circle.get("cy")) == pytest.approx(at["y"] - box["y"], abs=1)


def test_no_label_of_the_pinned_view_lies_on_a_weight(visit, sample, sample_page):
    tab = visit(sample_page)
    tab.set_viewport_size({"width": 900, "height": 600})
    node = max(features(sample), key=sample.degree)
    for key in (node, *sample.predecessors(node), *sample.successors(node)):
        select(tab, key)
        tab.locator("body").press("p")
    tab.locator("body").press("o")
    tab.wait_for_timeout(400)
    root = ElementTree.fromstring(tab.evaluate("circuit.svg()"))
    weights, labels = (
        [(float(e.get("x")), float(e.get("y")), len(e.text)) for e in texts]
        for texts in (
            root.find(f".//{SVG}g[@class='edges']").iter(f"{SVG}text"),
            root.find(f".//{SVG}g[@class='labels']").iter(f"{SVG}text"),
        )
    )
    assert min(len(weights), len(labels)) > 4
    for x, y, n in weights:
        for left, base, letters in labels:
            apart = (
                abs(y - (base - 4)) > 7 or x + 2.5 * n < left or x - 2.5 * n > left + 5 * letters
            )
            assert apart, (x, y, left, base)


def test_the_png_has_the_pixels_of_the_picture_twice_over(visit, sample, sample_page):
    tab = visit(sample_page)
    picture = Image.open(io.BytesIO(saved(tab, "Picture as PNG").path().read_bytes()))
    root = ElementTree.fromstring(tab.evaluate("circuit.svg()"))
    assert picture.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    key = str(next(n for n in features(sample) if sample.nodes[n]["effect"] < 0))
    (circle,) = (e for e in root.iter(f"{SVG}circle") if e.get("data-key") == key)
    x, y = (2 * float(circle.get(axis)) for axis in ("cx", "cy"))
    found = picture.convert("RGB").getpixel((round(x + 2 * 94), round(y)))
    assert contrast(found, tab.evaluate("circuit.painted('supports-fill')")) < 1.3


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no `pdftotext` (poppler-utils)")
def test_on_paper_axes_and_nodes_keep_their_places(visit, sample, sample_page, tmp_path):
    tab = visit(sample_page)
    tab.emulate_media(color_scheme="dark")
    path = tmp_path / "page.pdf"
    bands = tab.locator("#axis span").evaluate_all(
        """spans => spans.filter((span) => !span.hidden)
            .map((span) => [span.textContent, span.getBoundingClientRect().y])"""
    )
    tab.pdf(path=path, format="A4")
    words = subprocess.run(
        ["pdftotext", "-bbox", "-f", "1", "-l", "1", path, "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    printed = {
        text: float(y) for y, text in re.findall(r'yMin="([\d.]+)"[^>]*>([^<]+)</word>', words)
    }
    names = [name for name, _ in bands]
    assert set(names) <= set(printed)
    screen = dict(bands)
    first, last = names[0], names[-1]
    scale = (printed[last] - printed[first]) / (screen[last] - screen[first])
    for name in names:
        there = printed[first] + scale * (screen[name] - screen[first])
        assert printed[name] == pytest.approx(there, abs=2)


def test_at_twice_the_zoom_the_network_has_a_height_to_work_in(visit, sample_page):
    tab = visit(sample_page)
    tab.set_viewport_size({"width": 640, "height": 400})
    tab.wait_for_timeout(300)
    assert tab.locator("#network").bounding_box()["height"] >= 250
    assert tab.evaluate("document.documentElement.scrollWidth") <= 640


def test_back_goes_to_the_node_before_and_forward_again(visit, sample, sample_page):
    tab = visit(sample_page)
    first, second = (str(node) for node in features(sample)[:2])
    select(tab, first)
    tab.locator("body").press("p")
    select(tab, second)
    tab.go_back()
    assert tab.evaluate("circuit.selected()") == first
    assert tab.evaluate("circuit.state().pinned") == [first]
    tab.go_forward()
    assert tab.evaluate("circuit.selected()") == second


def test_the_arrow_walk_is_told_to_those_who_do_not_see_it(visit, sample, sample_page):
    tab = visit(sample_page)
    node = next(n for n in features(sample) if sample.out_degree(n) and sample.in_degree(n))
    select(tab, node)
    tab.locator("#network").press("ArrowUp")
    told = tab.locator("[aria-live=polite]#spoken").inner_text()
    key = tab.evaluate("circuit.selected()")
    assert key.startswith("logit/") or key in told
    assert re.search(r"\d+ inputs?, \d+ outputs?", told)


def test_a_node_that_an_arrow_goes_to_is_in_view_and_the_picture_stays(visit, sample, sample_page):
    tab = visit(sample_page)
    select(tab, features(sample)[0])
    before = tab.evaluate("circuit.scale()")
    box = tab.locator("#network").bounding_box()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowUp"):
        tab.locator("#network").press(key)
        at = tab.evaluate("circuit.position(circuit.selected())")
        assert box["x"] < at["x"] < box["x"] + box["width"]
        assert box["y"] < at["y"] < box["y"] + box["height"]
    assert tab.evaluate("circuit.scale()") == before


def test_sites_are_switched_off_and_table_and_check_follow(visit, sample):
    tab = visit(page(sample, verification=synthetic.verification(sample)))
    tab.locator("#sites summary").click()
    tab.locator("#sites input[value='mlp_out.3']").uncheck()
    gone = {str(node) for node in sample if node.site == "mlp_out.3"}
    assert gone
    shown = set(tab.evaluate("circuit.visible()"))
    assert shown == {str(node) for node in sample} - gone
    tab.keyboard.press("Escape")
    tab.locator("#tab-table").click()
    assert tab.locator("#panel-table tbody tr").count() == len(shown)
    assert f"{len(gone)} nodes hidden by the filters" in tab.locator("#panel-table").inner_text()
    tab.locator("#tab-check").click()
    faint = tab.locator("#panel-check circle").evaluate_all(
        "dots => dots.filter((dot) => dot.style.opacity === '0.08').length"
    )
    assert faint == len([n for n in sample if n.site == "mlp_out.3" and sample.nodes[n]["effect"]])
    tab.reload()
    assert set(tab.evaluate("circuit.visible()")) == shown


def test_table_and_check_show_the_card_of_what_is_clicked(visit, sample):
    tab = visit(page(sample, verification=synthetic.verification(sample)))
    tab.locator("#tab-table").click()
    tab.locator("#panel-table tbody tr button").nth(4).click()
    assert tab.locator("#panel-node").is_visible()
    assert tab.evaluate("circuit.selected()") in tab.locator("#panel-node").inner_text()
    tab.locator("#tab-check").click()
    tab.locator("#panel-check circle").first.click(force=True)
    assert tab.locator("#panel-node").is_visible()


def test_a_search_finds_promoted_tokens(visit, sample):
    cards = synthetic.cards(sample)
    node = features(sample)[3]
    cards[f"{node.site}/{node.feature}"]["promoted"] = [[" zebras", 1.0]]
    tab = visit(page(sample, cards=cards))
    tab.keyboard.press("/")
    tab.keyboard.type("zebras")
    tab.keyboard.press("Enter")
    assert tab.evaluate("circuit.selected()") == str(node)


def test_tokens_of_spaces_can_be_seen(visit):
    graph = synthetic.circuit(40)
    graph.graph["columns"] = ["The", "  ", *graph.graph["columns"][2:]]
    tab = visit(page(graph))
    assert "␣␣" in tab.locator("#tokens span").all_text_contents()


def test_many_nodes_are_drawn_by_cell_and_a_cell_opens(visit):
    graph = synthetic.circuit(900)
    tab = visit(page(graph))
    drawn = tab.evaluate("circuit.drawn()")
    cells = [key for key in drawn if key.startswith("cell/")]
    assert len(drawn) < 300
    assert set(tab.evaluate("circuit.visible()")) == {str(node) for node in graph}
    select(tab, cells[0])
    inside = int(re.search(r"Members \((\d+)\)", tab.locator("#panel-node").inner_text())[1])
    tab.get_by_role("button", name="Open", exact=True).click()
    assert len(tab.evaluate("circuit.drawn()")) == len(drawn) - 1 + inside
    tab.locator("#cells").uncheck()
    assert len(tab.evaluate("circuit.drawn()")) == len(graph)


COUNT = """() => {
    const canvas = CanvasRenderingContext2D.prototype;
    window.work = { stroke: 0, clearRect: 0, measureText: 0 };
    for (const name of Object.keys(work)) {
        const own = canvas[name];
        canvas[name] = function (...given) {
            if (this.canvas.isConnected) work[name] += 1;
            return own.apply(this, given);
        };
    }
}"""


def show_edges(tab, n="max"):
    """Set the slider; wait until all of them are painted and the frame with them is shown."""
    tab.locator("#edge-count").evaluate(
        """(slider, n) => {
            slider.value = n === "max" ? slider.max : n;
            for (const name of ["input", "change"]) slider.dispatchEvent(new Event(name));
        }""",
        n,
    )
    tab.evaluate(
        """(async () => {
            const frame = () => new Promise((done) => requestAnimationFrame(done));
            await frame();
            while (!circuit.whole()) await frame();
            await frame();
            await frame();
        })()"""
    )


def test_a_frame_draws_nodes_and_no_line_anew(visit):
    graph = synthetic.circuit(500)
    tab = visit(page(graph))
    show_edges(tab)
    assert len(tab.evaluate("circuit.lines()")) == graph.number_of_edges() > 1800
    tab.evaluate(COUNT)
    box = tab.locator("#network").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    for step in range(1, 6):
        tab.mouse.move(x + 6 * step, y + 3 * step)
        tab.wait_for_timeout(20)
    tab.mouse.up()
    select(tab, features(graph)[40])
    work = tab.evaluate("work")
    assert work["clearRect"] >= 3
    lines = max(graph.degree(node) for node in features(graph))
    assert work["stroke"] / work["clearRect"] < len(graph) + 300 + lines
    assert work["measureText"] / work["clearRect"] < 50


def test_many_lines_look_as_few_do(visit, sample, sample_page):
    tab = visit(sample_page)

    def pixels(n):
        show_edges(tab, n)
        shot = tab.locator("#network").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=int)

    drawn, layered, fewer = pixels(300), pixels(301), pixels(150)

    def differing(a, b):
        return (abs(a - b) > 40).mean()

    assert differing(drawn, layered) < 0.01 < 3 * 0.01 < differing(drawn, fewer)
