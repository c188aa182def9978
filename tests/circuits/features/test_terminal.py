"""A feature card on the terminal."""

import pytest
from rich.cells import cell_len
from rich.console import Console

from circuits.features.neighbours import feature_card
from circuits.features.terminal import card_view, label_lines


def hostile_card(card, text):
    examples = [{"tokens": [text] * 5, "values": [0, 1.0, -1.0, 0.5, 0], "peak": 1}]
    nearest = [{"feature": "mlp_out.1/2", "label": text, "cosine": -0.5}]
    return card | {
        "label": text,
        "max_activation": 1.0,
        "examples": examples,
        "sampled": examples,
        "promoted": [[text, 1.0]],
        "suppressed": [[text, -1.0]],
        "nearest": {"decoder": nearest, "encoder": [], "layers": nearest},
    }


def printed(card, **options):
    console = Console(width=100, **options)
    with console.capture() as captured:
        console.print(card_view(card))
    return captured.get()


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;t\x07",
        "[red]markup[/red]",
        "\u202egnitirw",
        "a\nb\tc\rd",
        "中文" * 40,
        "x" * 400,
        "",
    ],
)
def test_the_terminal_shows_any_token_as_text(model, suite, store, text):
    card = hostile_card(feature_card(model, suite, store, "mlp_out.1/3"), text)
    shown = printed(card, color_system=None)
    assert not set(shown) & set("\x1b\x07\r\t\u202e")
    assert max(map(cell_len, shown.splitlines())) <= 100
    if text.startswith("["):
        assert text in shown


def test_the_terminal_shades_tokens_by_activation(model, suite, store):
    card = hostile_card(feature_card(model, suite, store, "mlp_out.1/3"), " ab")
    shown = printed(card, force_terminal=True, color_system="truecolor")
    assert shown.count("\x1b[1;4;30;48;2;224;142;11m") == 2, "the strongest, in both lists"
    assert shown.count("48;2;247;203;104m") == 2, "half as strong; negative values have no ground"


def test_a_feature_that_never_fires_has_a_view(model, suite, store):
    card = feature_card(model, suite, store, "mlp_out.1/3")
    silent = card | {"max_activation": None, "density": 0.0, "examples": [], "sampled": []}
    assert "never active on any of 240 tokens" in printed(silent)


def test_scores_stand_with_their_interval_and_controls_and_those_without_a_number_do_not():
    told = {"balanced_accuracy": 0.8, "interval": [0.7, 0.9], "controls": {"nothing": None}}
    told["controls"]["another feature"] = 0.5
    fuzzing = told | {"balanced_accuracy": None}
    scores = {"judge": "model toy", "detection": told, "fuzzing": fuzzing}
    assert label_lines({"label_by": "Ann", "scores": scores}) == [
        "named by Ann",
        "detection 0.80 (0.70 to 0.90); by controls: another feature 0.50; judged by model toy",
    ]
    assert label_lines({}) == []
