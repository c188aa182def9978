"""The short automatic names of features."""

import random

import pytest

from circuits.features.names import WIDEST, name_of_card, short_name
from circuits.render.words import cells


@pytest.mark.parametrize(
    ("peaks", "promoted", "said"),
    [
        ([" key", " key", " door"], [" are"], "key, door → are"),
        ([" door", " key", " key"], [" are"], "key, door → are"),
        ([" Key", " key", "key"], [" are"], "Key → are"),
        ([" Key", " door", " key", " door"], [" Are", " is", " are"], "Key, door → Are"),
        ([" a", " b", " c"], [" are"], "a, b… → are"),
        ([" keyboard", " engineering", " c"], [" are"], "keyboard… → are"),
        (["\n", " ", "\t"], ["\n\n"], "⏎, ␣… → ⏎⏎"),
        (["主语", "复数"], ["中文"], "主语, 复数 → 中文"),
        ([" key"], [], "key"),
        ([], [" are"], "inactive → are"),
        (None, [" are", " Are", " were"], "→ are, were"),
        (None, [" internationalisation", " were"], "→ internationalisation"),
        ([" key"], ["internationalisation"], "key → internat…"),
        (["x" * 40], ["y" * 40], "xxxxxxxxxxx… → yyyyyyyy…"),
        (None, ["界" * 20], "→ 界界界界界界界界界界…"),
    ],
)
def test_a_name_is_of_the_commonest_peaks_and_the_first_promoted(peaks, promoted, said):
    assert short_name(peaks, promoted) == said


def test_no_name_is_wider_than_said():
    letters = random.Random(0)
    tokens = ["".join(letters.choices(" aé界\n🙂", k=letters.randint(1, 30))) for _ in range(300)]
    for i in range(0, 300, 6):
        for peaks in (None, [], tokens[i : i + 5]):
            name = short_name(peaks, tokens[i + 5 :])
            assert cells(name) <= WIDEST
            assert name.strip()
            assert not any(c.isspace() and c != " " for c in name)


def test_a_name_is_that_of_the_card_whatever_else_the_card_says():
    examples = [
        {"tokens": ["a", token, "b"], "values": [0, 1, 0], "peak": 1} for token in (" key", " door")
    ]
    card = {"examples": examples, "promoted": [[" are", 0.5], [" were", 0.4]]}
    assert name_of_card(card) == name_of_card(card | {"density": 0.5}) == "key, door → are"
