"""What the head of a page says of the prompt, the task and the model."""

import pytest

from circuits.render.pages.circuit.page import page
from circuits.render.pages.heading import heading, title_of
from tests.circuits import synthetic
from tests.circuits.browser import needs_browser

PAIR = {
    "clean": ["The", " keys", " near", " the", " door"],
    "patch": ["The", " key", " near", " the", " door"],
    "answer": [" are"],
    "wrong": [" is"],
}
MODEL = {"name": "Qwen3-0.6B"}


def whole(side):
    return "".join(text for text, _ in side.text)


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"task": "agreement", "example": PAIR, "model": MODEL}, "agreement · Qwen3-0.6B"),
        ({"example": PAIR, "model": MODEL}, "The keys near the door → are · Qwen3-0.6B"),
        ({"example": {**PAIR, "patch": None}}, "The keys near the door → are"),
        ({"title": "Mine", "task": "agreement", "model": "m"}, "Mine · m"),
        ({}, "Feature circuit"),
    ],
)
def test_a_title_tells_two_tabs_apart(meta, said):
    assert title_of(meta) == said


def test_a_long_prompt_keeps_its_ends_and_what_differs():
    clean = [f" w{i}" for i in range(400)]
    patch = [*clean[:200], " other", *clean[201:]]
    found = heading({"example": {**PAIR, "clean": clean, "patch": patch}, "n_prompts": 1})
    assert found is not None
    assert found.more == 0
    sides = [whole(side) for side in found.sides]
    assert all(len(side.split()) < 60 for side in sides)
    assert [side.count("…") for side in sides] == [2, 2]
    assert [t for side in found.sides for t, differs in side.text if differs] == ["w200", "other"]
    assert sides[0].startswith(" w0 w1")
    assert sides[1].endswith(" w398 w399")


@needs_browser
def test_the_page_shows_the_first_prompt_with_what_differs(visit):
    graph = synthetic.circuit(20)
    graph.graph |= {"title": None, "task": "agreement", "example": PAIR, "n_prompts": 16}
    tab = visit(page(graph))
    assert tab.title() == "agreement · Qwen3-0.6B-Base"
    head = tab.locator("#prompt")
    assert head.locator("mark").all_text_contents() == ["keys", "key"]
    text = head.inner_text()
    assert "The keys near the door → are" in text
    assert "The key near the door → is" in text
    assert "and 15 more prompts" in text
