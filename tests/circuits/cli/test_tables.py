"""What commands print: every number once, nothing cut, nothing taken for markup."""

import pytest

from circuits.cli import tables
from circuits.comparison import differences
from circuits.prompt_files import Prompt
from hooked_qwen.families import Task
from tests.circuits.printed import printed
from tests.circuits.synthetic import circuit


@pytest.fixture
def said():
    """The lines that a table prints."""

    def lines(table, *arguments, **named) -> list[str]:
        return printed(table, *arguments, **named).splitlines()

    return lines


def test_an_ablation_stands_between_before_and_its_controls(said):
    result = {
        "before": 2.0, "accuracy_before": 1.0, "after": -0.5, "accuracy_after": 0.25,
        "controls": [{"name": "random features", "after": None, "accuracy_after": 0.75}],
    }  # fmt: skip
    lines = said(tables.ablation_table, result)
    for shown in (("before", "+2.0000", "100%"), ("after", "-0.5000", "25%"), ("–", "75%")):
        assert sum(all(part in line for part in shown) for line in lines) == 1


def test_a_comparison_counts_every_node_and_shows_the_most_changed(said):
    one, other = circuit(20), circuit(20)
    changed = [n for n, data in other.nodes(data=True) if data["effect"]][:3]
    for node in changed:
        other.nodes[node]["effect"] += 5.0
    rows = differences(one, other)
    lines = said(tables.comparison_table, rows, ("one", "other"), (one, other), shown=3)
    text = " ".join(" ".join(lines).split())
    assert f"3 changed, {len(rows) - 3} the same in both" in text
    # Supports, as on the page: the sign is flipped.
    shown = [line for line in lines if "-5.0000" in line]
    assert len(shown) == 3
    for node in changed:
        (line,) = (line for line in shown if f"{node} " in line)
        assert f"{-other.nodes[node]['effect']:+.4f}" in line
        assert other.nodes[node]["label"][:12] in line


def test_a_comparison_of_a_divergence_keeps_its_sign(said):
    one, other = circuit(20), circuit(20)
    for graph in (one, other):
        graph.graph["metric"] = "kl"
    node = next(n for n, data in other.nodes(data=True) if data["effect"])
    other.nodes[node]["effect"] += 5.0
    rows = differences(one, other)
    lines = said(tables.comparison_table, rows, ("one", "other"), (one, other), shown=3)
    assert sum("+5.0000" in line for line in lines) == 1


def test_a_task_without_an_example_says_why_and_brackets_are_no_markup(said):
    task = Task(name="brackets", description="close it: [ ( -> [bold]", templates=lambda _: ())
    prompt = Prompt(clean="[red] a", patch="( a", answer=("]",), wrong=(")", "}"))
    lines = said(tables.tasks_table, [(task, prompt), (task, None)])
    assert lines == [
        "brackets  close it: [ ( -> [bold]",
        "  clean '[red] a' → ']'",
        "  patch '( a' → ')' / '}'",
        "brackets  close it: [ ( -> [bold]",
        "  too few of its words are one token to this model",
    ]
