"""The page of a sweep, in a browser; the heat map as a figure."""

import pytest

from circuits.render.pages.steer.steer_page import steer_page, verdict

HOSTILE = "</script><script>alert(1)</script>"


def number(value, interval=None):
    return {"value": value, "interval": interval}


def written(concept, texts, perplexity=3.0):
    return {
        "concept": number(concept, [concept - 0.1, concept + 0.1]),
        "fluency": number(0.9),
        "score": number(concept),
        "perplexity": number(perplexity),
        "repetition": number(0.0),
        "kl": number(0.2),
        "by_prompt": [concept] * len(texts),
        "fluency_by_prompt": [0.9] * len(texts),
        "texts": texts,
    }


def arm(method, direction, strength, group, concept):
    return {
        "method": method,
        "direction": direction,
        "of": None,
        "label": "中文" if method == "feature" else None,
        "groups": [group],
        "strength": strength,
        "alpha": 3.0 * strength,
        "norm": 4.0 * abs(strength),
    } | written(concept, [f"{direction} {strength}", HOSTILE])


def method(name, group, value, chosen=()):
    return {
        "group": group,
        "name": name,
        "score": number(value, [value - 0.1, value + 0.1]),
        "difference": None if value == 0.7 else number(value - 0.7, [value - 0.8, value - 0.6]),
        "concept": number(value),
        "fluency": number(0.9),
        "tried": 2,
        "chosen": [{"direction": d, "strength": s} for d, s in chosen],
    }


def sweep():
    """The record of a small one."""
    feature, means = "resid_post.3/86", "resid_post.3"
    return {
        "do": "add",
        "during": "all",
        "unit": "max",
        "goal": "more",
        "strengths": [1.0],
        "scorer": {"name": "script:cjk", "said": "share of letters that are cjk"},
        "form": "chat",
        "prompts": ["The boy", HOSTILE],
        "instruction": "Answer in Chinese.",
        "generation": {"tokens": 4, "temperature": 0.0, "seed": 0},
        "model": "toy",
        "features": [
            {
                "feature": feature,
                "label": "中文",
                "by": ["output"],
                "output_score": 0.2,
                "input_score": None,
                "effect": None,
                "largest": 3.0,
                "density": 0.01,
                "promoted": [" 的", HOSTILE],
            }
        ],
        "plain": written(0.1, ["as it is", "too"]),
        "instructed": written(0.4, ["told", "told too"]),
        "arms": [
            arm("feature", feature, 1.0, "output", 0.5),
            arm("feature", feature, -1.0, "negative", 0.1),
            arm("difference of means", means, 1.0, "difference of means", 0.7),
        ],
        "methods": [
            method("difference of means", "difference of means", 0.7, [(means, 1.0)]),
            method("features by output score", "output", 0.5, [(feature, 1.0)]),
            method("instruction in the prompt", "instruction", 0.4),
            method("the sign turned", "negative", 0.1, [(feature, -1.0)]),
            method("no steering", "plain", 0.1),
        ],
        "chosen_on": "other prompts",
        "baseline": "difference of means",
        "selection": {
            "output": number(0.02),
            "activation": number(0.27),
            "ratio": None,
            "difference": number(-0.25, [-0.5, 0.0]),
        },
        "notes": [HOSTILE],
    }


@pytest.fixture
def record():
    return sweep()


def test_what_does_best_is_said_first(visit, record):
    tab = visit(steer_page(record))
    said = tab.locator(".verdict").inner_text()
    assert said == verdict(record)
    assert said.startswith("best: difference of means, 0.70")
    assert "features by output score, 0.50" in said
    rows = tab.locator("#best tbody tr")
    assert rows.count() == 5
    assert "difference of means" in rows.first.inner_text()
    assert "resid_post.3/86 −1" in rows.nth(3).inner_text()


def test_each_method_stands_beside_the_best_simple_one(visit, record):
    tab = visit(steer_page(record))
    rows = [row.inner_text() for row in tab.locator("#best tbody tr").all()]
    assert [("–" in rows[0], "−0.20" in rows[1], "[−0.30, −0.10]" in rows[1])] == [(True,) * 3]
    said = tab.locator("#best .note").inner_text()
    assert "Difference: from the best simple method, difference of means, prompt by prompt" in said
    assert "A feature by output score less one by activation: −0.25 [−0.50, 0.00]" in said


def test_few_prompts_choose_and_judge_and_the_page_says_so(visit, record):
    record["selection"]["ratio"] = number(0.6, [0.05, 198.0])
    assert "0.60 [0.05, 198.00] times" in verdict(record)
    assert "(0.02 against 0.27)" in verdict(record)
    record["selection"]["activation"] = number(0.003)
    record["selection"]["output"] = number(0.001)
    assert "times" not in verdict(record)
    record["selection"]["output"] = number(0.27)
    assert "on the other half" in visit(steer_page(record)).locator("#best .note").inner_text()
    few = {**record, "chosen_on": "the same prompts"}
    assert "times" not in verdict(few)
    assert "did best on the same prompts" in (
        visit(steer_page(few)).locator("#best .note").inner_text()
    )


def test_where_nothing_steers_nothing_is_best(record):
    none = [{**one, "score": number(0.004)} for one in record["methods"]]
    assert verdict({**record, "methods": none}).startswith("best: none; nothing tried")


def test_a_cell_shows_its_texts(visit, record):
    tab = visit(steer_page(record))
    assert tab.locator("#written article").count() == 2
    before = tab.locator("#written article").first.locator(".side").count()
    assert before == 5
    cell = tab.get_by_role("button", name="feature resid_post.3/86 中文 at −1: both 0.10")
    cell.click()
    first = tab.locator("#written article").first
    assert first.locator(".side").count() == before + 1
    assert "resid_post.3/86 -1.0" in first.inner_text()
    assert HOSTILE in tab.locator("#written article").nth(1).inner_text()
    tab.get_by_role("button", name="perplexity", exact=True).click()
    assert "3" in tab.locator(".map button").first.inner_text()
    assert tab.locator('.map button[aria-pressed="true"]').count() == 1


def test_the_page_is_no_wider_than_the_window_and_can_be_read_otherwise(visit, record, violations):
    tab = visit(steer_page(record))
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    found = violations(tab)
    assert found == [], "\n".join(found)


def test_a_long_pattern_makes_the_page_no_wider_on_a_phone(visit, record):
    pattern = {"name": "regex", "said": "|".join(["network"] * 20)}
    tab = visit(steer_page({**record, "scorer": pattern}))
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert pattern["said"] in tab.locator("#map .note").inner_text()


def test_on_a_phone_the_map_shows_numbers_beside_the_names(visit, record):
    tab = visit(steer_page(record))
    tab.set_viewport_size({"width": 390, "height": 800})
    buttons = tab.locator(".map tbody tr").nth(2).locator("button").all()
    assert all(one.bounding_box()["x"] + one.bounding_box()["width"] < 390 for one in buttons)
    assert "resid_post.3/86" in tab.locator(".map tbody th").nth(2).inner_text()


def test_colours_have_a_key_with_its_ends(visit, record):
    tab = visit(steer_page(record))
    assert tab.locator(".key").inner_text().split("\n")[:3] == ["both, colour:", "0", "1"]
    assert tab.locator(".map thead").inner_text().split()[:2] == ["strength", "none"]
    tab.get_by_role("button", name="perplexity", exact=True).click()
    key = tab.locator(".key").inner_text()
    assert "perplexity, colour by its logarithm" in key
    assert key.split("\n")[2] == "3"
    record["arms"][1]["concept"] = number(-0.4)
    tab = visit(steer_page(record))
    tab.get_by_role("button", name="concept", exact=True).click()
    assert "−1" in tab.locator(".key").inner_text()
