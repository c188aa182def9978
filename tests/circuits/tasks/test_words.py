"""Lists of words: long enough, without repeats, and split by their notation."""

from circuits.tasks import names, words
from tests.circuits.tasks.english import LISTS


def test_word_lists_are_long_enough_and_without_repeats():
    for entries in LISTS:
        if isinstance(entries, tuple):
            assert len(set(entries)) == len(entries)
    assert min(map(len, (words.THINGS, words.PEOPLE, names.MEN, names.WOMEN))) >= 120


def test_plural_forms_are_as_written():
    assert ("key", "keys") in words.THINGS
    assert ("shelf", "shelves") not in words.THINGS
    assert ("knife", "knives") in words.THINGS
    assert ("child", "children") in words.PEOPLE
    # Of a verb the form after one comes first.
    assert ("watches", "watch") in words.VERBS


def test_no_two_countries_share_a_capital():
    countries, capitals = zip(*words.CAPITALS, strict=True)
    assert len({*countries, *capitals}) == 2 * len(words.CAPITALS)
