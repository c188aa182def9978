"""The words of the bundled language: one token each, two halves that share none."""

from dataclasses import fields

import pytest
from transformers import AutoTokenizer

from hooked_qwen.bundled import PATH
from hooked_qwen.bundled.atlas import REGIONS
from hooked_qwen.bundled.lexicon import FOLK, PEOPLE, RELATIVE_VERBS, THINGS, Words, words

LISTS = [field.name for field in fields(Words)]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


def test_every_word_of_the_lexicon_is_one_token(tokenizer):
    every = words()
    forms = [f for noun in every.things + every.people for f in (noun.singular, noun.plural)]
    verbs = every.thing_verbs + every.person_verbs + every.relative_verbs + every.auxiliaries
    forms += [form for verb in verbs for form in (verb.singular, verb.plural)]
    forms += [person.name for person in every.persons] + [town.name for town in every.towns]
    forms += [name for region in REGIONS for name in (region.name, region.capital)]
    forms += [*every.objects, *every.places, *every.events, *every.code_words, *every.letters]
    forms += [str(year) for year in every.years]
    split = [form for form in forms if len(tokenizer(f" {form}").input_ids) != 1]
    assert not split


@pytest.mark.parametrize("name", LISTS)
def test_two_halves_share_no_entry_and_are_all_there_is(name):
    every, *halves = (getattr(words(split), name) for split in (None, "train", "test"))
    assert len(set(every)) == len(every)
    assert sorted(map(str, every)) == sorted(map(str, [*halves[0], *halves[1]]))
    assert 0 <= len(halves[0]) - len(halves[1]) <= 1


def test_forms_are_as_written():
    plurals = dict([*THINGS, *PEOPLE])
    assert [plurals[one] for one in ("key", "shelf", "child", "doctor")] == [
        "keys",
        "shelves",
        "children",
        "doctors",
    ]
    verbs = {verb.plural: (verb.singular, verb.past) for verb in RELATIVE_VERBS}
    assert verbs["like"] == ("likes", "liked")
    assert verbs["watch"] == ("watches", "watched")
    assert verbs["carry"] == ("carries", "carried")


def test_a_form_is_the_singular_for_0_and_the_plural_for_1():
    child = next(noun for noun in FOLK if noun.singular == "child")
    assert [child.form(number) for number in (0, 1)] == ["child", "children"]
    is_are = words().auxiliaries[0]
    assert [is_are.form(number) for number in (0, 1)] == ["is", "are"]


def test_persons_and_towns_are_those_of_their_halves():
    half = words("test")
    assert {person.pronoun for person in half.women} == {"she"}
    assert half.persons == half.women + half.men
    assert len(half.towns) == 8 * len(half.regions) == 4 * len(REGIONS)
