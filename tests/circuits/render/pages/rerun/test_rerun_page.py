"""The page of an edit that was rerun, in a browser: every part, alone and together with a graph."""

import pytest

from circuits.comparison import differences
from circuits.graph import ordered
from circuits.render.pages.rerun.rerun_page import Graphs, rerun_page
from circuits.runs.rerun import graph_record
from tests.circuits import synthetic

HOSTILE = "</script><script>alert(1)</script>"
BREAKING = '"><img src=x onerror=alert(1)>\n\u202e<b>&lt;'
KINDS = (
    "random features",
    "features of like activation and decoder norm",
    "neurons",
    "a random direction of the same norm",
)


def figure(value, low=None, high=None):
    return {"value": value, "interval": None if low is None else [low, high]}


def prompt(clean, before, after, tokens=(" sit", " sits")):
    return {
        "clean": clean,
        "answer": tokens[0],
        "wrong": tokens[1],
        "before": before,
        "after": after,
        "kl": 1.25,
        "preferred_before": tokens[before < 0],
        "preferred_after": tokens[after < 0],
        "likeliest_before": " sing",
        "likeliest_after": HOSTILE,
    }


def prompts(n=30):
    rows = [
        prompt(f"The surgeons {i}", 5.0 + i / 10, -3.0 if i == 3 else 4.0) for i in range(n - 1)
    ]
    return {
        "n": n,
        "metric": "logit-difference",
        "before": figure(5.07, 4.8, 5.4),
        "after": figure(2.36, 0.8, 3.8),
        "change": figure(-2.72, -4.4, -1.1),
        "accuracy_before": figure(1.0, 1.0, 1.0),
        "accuracy_after": figure(0.78, 0.62, 0.91),
        "kl": figure(1.5, 0.8, 2.3),
        "prompts": [prompt(BREAKING, 2.0, -1.0, (HOSTILE, " ok")), *rows],
    }


def text():
    row = {
        "before": f"of the region. The kings near {HOSTILE}",
        "token": " talk",
        "p_before": 0.976,
        "p_after": 0.005,
        "kl": 5.45,
        "likeliest_before": " sing",
        "likeliest_after": " nods",
    }
    return {
        "blocks": 16,
        "tokens": 2032,
        "ce_before": figure(1.502, 1.375, 1.631),
        "ce_after": figure(1.51, 1.383, 1.643),
        "change": figure(0.0087, 0.0007, 0.02),
        "kl": figure(0.0088, 0.0008, 0.0195),
        "same": figure(0.99, 0.98, 0.997),
        "most": [row] * 20,
    }


def written():
    def token(name, before, after, mark=None):
        return {"token": name, "before": before, "after": after, "mark": mark}

    before = [token(" sing", 0.04, 0.001, "lowered"), token(" in", 0.9, 0.9), token(HOSTILE, 1, 1)]
    after = [token(" prays", 0.001, 0.05, "raised"), token(" in", 0.9, 0.9)]
    row = {
        "prompt": "The surgeons near the jackets",
        "before": "",
        "after": "",
        "same_tokens": 0,
        "tokens_before": before,
        "tokens_after": after,
    }
    return {"tokens": 40, "temperature": 0.0, "mark": 2.0, "seed": 0, "prompts": [row]}


def effects():
    def behaviour(name, share):
        control = {
            "share": figure(-0.02, -0.05, 0.0),
            "draws": [-0.01, -0.02, -0.03],
            "beyond": figure(-0.5, -0.6, -0.4),
            "kl": figure(0.01, 0.0, 0.02),
        }
        return {
            "name": name,
            "n": 16,
            "before": figure(5.0, 4.0, 6.0),
            "contrast": figure(9.0, 8.0, 10.0),
            "accuracy_before": figure(1.0, 1.0, 1.0),
            "accuracy_after": figure(0.5, 0.3, 0.7),
            "change": figure(-5.0, -6.0, -4.0),
            "share": share,
            "kl": figure(2.702, 1.0, 3.0),
            "controls": dict.fromkeys(KINDS, control),
        }

    cost = {
        "change": figure(0.018, 0.012, 0.024),
        "kl": figure(0.022, 0.013, 0.032),
        "draws": [0.02, 0.03, 0.01],
        "beyond": figure(-0.013, -0.02, -0.01),
    }
    return {
        "draws": 3,
        "behaviours": [
            behaviour("agreement_nounpp", figure(-0.61, -0.82, -0.36)),
            behaviour(HOSTILE, figure(0.05, 0.01, 0.09)),
            behaviour("unknown", figure(None)),
        ],
        "text": {
            "blocks": 16,
            "tokens": 2032,
            "ce_before": figure(1.5, 1.4, 1.6),
            "change": figure(0.009, 0.001, 0.02),
            "kl": figure(0.009, 0.001, 0.019),
            "controls": dict.fromkeys(KINDS, cost),
        },
        "controls": {},
        "left_out": {"ioi": f"knows no {HOSTILE}"},
    }


def record(**parts):
    return {
        "schema": "rerun/1",
        "edit": ["5 features of mlp_out.0: set to 0 at every token", BREAKING],
        "n_operations": 3,
        "operations": [
            {"node": "mlp_out.0/1", "does": "set to 0", "where": "at every token", "when": ""},
            {"node": "mlp_out.0/2@3", "does": HOSTILE, "where": "at position 3", "when": BREAKING},
        ],
        "model": HOSTILE,
        "made_from": {"edit": "0"},
        **parts,
    }


ALL = {"prompts": prompts(), "text": text(), "generate": written(), "side_effects": effects()}


@pytest.fixture(scope="module")
def graphs():
    before, after = synthetic.circuit(40, seed=1), synthetic.circuit(40, seed=2)
    pinned = next(n for n in ordered(before) if n.kind == "feature" and n not in after)
    after.add_node(pinned, **before.nodes[pinned] | {"effect": 0.0, "ablated": "zero"})
    changed = next(n for n in ordered(after) if n.kind == "feature" and n != pinned)
    after.nodes[changed]["edited"] = "multiplied by 2 at every token"
    return Graphs(before=before, after=after, cards=synthetic.cards(after)), changed


def parts_of(tab):
    return tab.locator("#parts a").all_inner_texts()


def test_only_what_was_run_is_shown(visit):
    tab = visit(rerun_page(record(text=text()), title=HOSTILE))
    assert parts_of(tab) == ["The edit", "Text"]
    assert tab.locator("main > section").count() == 2
    assert tab.locator("#network").count() == 0
    assert tab.locator("h1").inner_text() == HOSTILE
    words = tab.locator("#edit").inner_text()
    assert "5 features of mlp_out.0: set to 0 at every token" in words
    assert "and 1 more in the edit's file" in words
    assert "0.0088" in tab.locator("#text .figures").inner_text()
    assert tab.locator("#text tbody tr").count() == 20


@pytest.mark.parametrize("width", [1280, 800])
def test_every_part_stands_on_one_page_and_nothing_runs_over(visit, graphs, width):
    shown, _ = graphs
    graph = graph_record(shown.before, shown.after)
    tab = visit(rerun_page(record(**ALL, graph=graph), title="cut", graphs=shown))
    tab.set_viewport_size({"width": width, "height": 900})
    assert parts_of(tab) == ["The edit", "Prompts", "Text", "Generation", "Side effects", "Graph"]
    # Parts are drawn again where the window is narrow.
    tab.evaluate("new Promise(requestAnimationFrame)")
    tab.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    over = tab.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".scrolls, .written, dl")]
          .filter((box) => box.scrollWidth > Math.max(box.clientWidth, 1) + 1)
          .map((box) => box.getAttribute("aria-label") ?? box.className)"""
    )
    assert over == []
    for name in ("Prompts", "Text", "Generation", "Side effects"):
        assert HOSTILE in tab.locator(f"section:has(h2:text-is('{name}'))").inner_text()


def test_a_long_path_makes_the_page_no_wider_on_a_phone(visit):
    shown = {**record(**ALL), "edit": [f"15 dictionaries at /{'folder_' * 20}"]}
    tab = visit(rerun_page(shown, title="cut"))
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.locator("#edit .said").evaluate("e => e.scrollWidth - e.clientWidth") <= 0


def test_the_graph_is_the_merged_one_with_its_table_and_states(visit, graphs):
    shown, changed = graphs
    rows = differences(shown.before, shown.after)
    graph = graph_record(shown.before, shown.after)
    tab = visit(rerun_page(record(graph=graph), title="cut", graphs=shown))
    tab.locator("#tab-table").click()
    assert tab.locator("#panel-table tbody tr").count() == len(rows)
    legend = tab.locator("#legend").inner_text()
    for words in ("only in before", "only in after", "pinned by the edit", "changed"):
        assert words in legend
    figures = dict(
        zip(
            tab.locator("#graph-words dt").all_inner_texts(),
            tab.locator("#graph-words dd").all_inner_texts(),
            strict=True,
        )
    )
    assert figures["pinned by the edit"] == "1"
    assert figures["gone"] == str(sum(row.status == "only-a" for row in rows))
    tab.locator("#tab-node").click()
    tab.evaluate("key => circuit.select(key)", str(changed))
    card = tab.locator("#panel-node").inner_text()
    assert "edited: multiplied by 2 at every token" in card
    assert "active on" in card
    assert "NaN" not in card
    assert "support, before" in card


def test_prompts_are_sorted_shown_all_and_those_that_turn_are_told(visit):
    tab = visit(rerun_page(record(prompts=prompts()), title="cut"))
    rows = tab.locator("#prompts tbody tr")
    assert rows.count() == 24
    assert "changes in 2 of 30" in tab.locator("#prompts").inner_text()
    assert tab.locator("#prompts tbody tr.flips").count() == 2
    tab.get_by_role("button", name="show all 30 prompts").press("Enter")
    assert rows.count() == 30
    tab.get_by_role("button", name="by change").press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "by change"
    assert "The surgeons 3" in rows.first.inner_text()
    assert "−8.30" in rows.first.inner_text()
    dots = rows.first.locator("circle").evaluate_all("c => c.map((x) => +x.getAttribute('cx'))")
    assert dots[1] < dots[0]


def test_marked_tokens_have_a_sign_and_tell_both_probabilities_to_the_keyboard(visit):
    tab = visit(rerun_page(record(generate=written()), title="cut"))
    marked = tab.locator(".written .marked")
    assert marked.all_inner_texts() == [" sing▼", " prays▲"]
    colours = marked.evaluate_all("m => m.map((x) => getComputedStyle(x).color)")
    assert colours[0] != colours[1]
    marked.first.focus()
    told = marked.first.evaluate("m => getComputedStyle(m, '::after').content")
    assert told == '"▼ 0.040 before, 0.001 after"'
    tab.locator("#generate summary").first.click()
    tab.set_viewport_size({"width": 800, "height": 900})
    assert tab.locator("#generate details").first.get_attribute("open") is not None
    cells = tab.locator("#generate tbody tr").first.locator("td").all_inner_texts()
    assert cells[2:] == ["0.040", "0.001", "▼ lowered"]


def test_the_edit_and_every_control_stand_on_one_scale(visit):
    tab = visit(rerun_page(record(side_effects=effects()), title="cut"))
    first, second, unknown = tab.locator("#side_effects .behaviour").all()
    assert first.locator(".mark").count() == 1 + len(KINDS)
    at = [
        row.locator("circle").first.evaluate("c => c.getBoundingClientRect().x")
        for row in (first, second)
    ]
    zero = [
        row.locator("line.zero").evaluate("l => l.getBoundingClientRect().x")
        for row in (first, second)
    ]
    assert at[0] < zero[0] < at[1] + 4
    assert zero[0] == zero[1]
    assert "−0.61" in first.inner_text()
    assert "[−0.82, −0.36]" in first.inner_text()
    assert "does not tell clean from patch" in unknown.inner_text()
    keys = tab.locator("#side_effects .keys").inner_text()
    assert all(kind in keys for kind in ("the edit", *KINDS))
    shapes = first.locator(".mark > *").evaluate_all("m => m.map((x) => x.outerHTML.split(' ')[0])")
    assert len(shapes) == 1 + len(KINDS)
    assert "+0.009" in tab.get_by_role("table", name="cross-entropy, change").inner_text()
    assert "knows no" in tab.locator(".left-out").inner_text()


def test_a_number_that_is_none_is_refused():
    broken = text() | {"kl": figure(float("nan"))}
    with pytest.raises(ValueError, match="not JSON compliant"):
        rerun_page(record(text=broken), title="cut")


def test_every_part_is_accessible(visit, violations, graphs):
    shown, _ = graphs
    graph = graph_record(shown.before, shown.after)
    tab = visit(rerun_page(record(**ALL, graph=graph), title="cut", graphs=shown))
    assert violations(tab) == []
