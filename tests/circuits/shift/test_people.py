"""How a person is told of: names of one half, words of one gender, another mention further on."""

import random
import re

import pytest

from circuits.shift import biographies_bundled, biographies_english
from circuits.shift.labelled import only_words
from circuits.shift.people import CUES, PersonMentions, biography

LEXICONS = [biographies_bundled.LEXICON, biographies_english.LEXICON]


def person(lexicon, cues, gender=0, half="train", seed=0):
    return PersonMentions(
        random.Random(seed), cues=set(cues), gender=gender, half=half, lexicon=lexicon
    )


@pytest.mark.parametrize("lexicon", LEXICONS, ids=["bundled", "English"])
@pytest.mark.parametrize("gender", [0, 1])
def test_texts_have_no_name_or_pronoun_of_the_other_gender(lexicon, gender):
    rng, other = random.Random(3), 1 - gender
    pronouns = [lexicon.pronouns[other], *lexicon.object_pronouns[other : other + 1]]
    profession = next(iter(lexicon.work))
    for _ in range(40):
        text = biography(rng, profession, gender, "train", lexicon=lexicon)
        assert not only_words(text, [*lexicon.names[other], *pronouns]), text
        assert not re.search(r"[{}\[\]]", text), text


@pytest.mark.parametrize("lexicon", LEXICONS, ids=["bundled", "English"])
def test_halves_have_names_of_their_own(lexicon):
    for gender in (0, 1):
        called = [
            {
                name
                for seed in range(60)
                for name in lexicon.names[gender]
                if name == person(lexicon, ["names"], gender, half, seed).mentions(False)["Who"]
            }
            for half in ("train", "test")
        ]
        assert all(called)
        assert not set.intersection(*called)


def test_the_pronoun_comes_after_the_first_mention_and_only_where_it_is_a_cue():
    lexicon = biographies_english.LEXICON
    told = person(lexicon, ["names", "pronouns"])
    first, *later = (told.mentions(i == 0) for i in range(30))
    assert first["Who"] not in lexicon.pronouns
    assert {m["Who"] for m in later} >= {lexicon.pronouns[0]}
    assert {m["their"] for m in later} == {lexicon.possessives[0]}
    plain = person(lexicon, ["titles"])
    assert {plain.mentions(False)["their"] for _ in range(10)} == {"the"}
    assert not {plain.mentions(False)["Who"] for _ in range(10)} & {*lexicon.pronouns}


def test_every_kind_of_cue_has_its_words():
    for lexicon in LEXICONS:
        assert len(lexicon.cue_words) == len(CUES)
        assert not any("{" in word for words in lexicon.cue_words for word in words)
