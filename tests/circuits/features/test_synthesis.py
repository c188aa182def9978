"""Texts written for missing features, by any callable and by the model itself."""

import json

import pytest
import torch

from circuits.features.synthesis import synthesised
from circuits.features.synthesis_record import (
    ALONE,
    ASKED,
    RANDOM_TARGET,
    RANDOM_TRAINING,
    REAL,
    ROWS,
    WHOLE,
    SynthesisConfig,
)
from circuits.features.writers import (
    WritingConfig,
    each_by,
)
from saes.evaluation.probing import Labelled
from saes.scope.activity import activity_of
from tests.toys import speaking_toy, toy, toy_suite, toy_tokenizer

CONTINUED = WritingConfig(style="continuation", tokens=6, separator=" ")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def suite():
    return toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)


def labelled(*texts):
    """Texts that begin with a are of one label."""
    return [Labelled(text, "a" if text.startswith("a") else "z") for text in texts]


TRAINING = labelled("ab", "a b", "z", "zz")
TARGET = labelled("abc? Why!", "a Q R.", "ab Why", "z KLM", "zy? KL", "zz Q R")
TEST = labelled("abc", "aQ", "zy", "z K")


@pytest.fixture(scope="module")
def found(model, suite):
    """A generator that repeats what it is shown with something behind it, in two ways."""
    asked = []

    def repeat(prompt):
        asked.append(prompt)
        return [f"{prompt} {len(asked)}a.".translate(DIGITS), "ab", ""]

    config = SynthesisConfig(features=3, tries=2, shown=1, seeds=2)
    writer = each_by(repeat)
    made = synthesised(
        model, suite, TRAINING, TARGET, writer, {}, test=TEST, config=config, writing=CONTINUED
    )
    return made, asked


DIGITS = str.maketrans("0123456789", "cdefghijkl")


def on(model, suite, texts):
    return set(activity_of(model, suite, texts).feature.tolist())


def test_the_features_asked_for_are_missing_and_come(model, suite, found):
    made, _ = found
    record = made.record
    training = on(model, suite, [t.text for t in TRAINING])
    target = on(model, suite, [t.text for t in TARGET])
    assert record["target_features"] == len(target)
    assert record["missing"] == len(target - training)
    rows = record["rows"]
    assert rows[ALONE]["covered"] == pytest.approx(len(target & training) / len(target))
    assert (rows[ALONE]["asked_covered"], rows[ALONE]["texts"]) == (0.0, 0.0)
    for text in made.written:
        if text.row == ASKED:
            own = on(model, suite, [text.text])
            assert text.kept == (text.wanted.feature in own)
            assert text.wanted.feature in target - training
            assert set(text.fired) <= own
    kept = [t for t in made.written if t.row == ASKED and t.kept]
    assert kept
    of_first = training | on(model, suite, [t.text for t in kept if t.seed == 0])
    of_second = training | on(model, suite, [t.text for t in kept if t.seed == 1])
    expected = sum(len(target & some) / len(target) for some in (of_first, of_second)) / 2
    assert rows[ASKED]["covered"] == pytest.approx(expected, abs=1e-6)


def test_rows_have_as_many_texts_of_each_label(found):
    made, _ = found
    kept = [t for t in made.written if t.kept]
    for seed in (0, 1):
        for label in "az":
            budget = sum((t.row, t.seed, t.label) == (ASKED, seed, label) for t in kept)
            for row in (RANDOM_TARGET, RANDOM_TRAINING):
                assert sum((t.row, t.seed, t.label) == (row, seed, label) for t in kept) == budget
    rows = made.record["rows"]
    assert list(rows) == [ALONE, *ROWS]
    assert 0 < rows[REAL]["texts"] <= rows[ASKED]["texts"]
    assert (rows[WHOLE]["texts"], rows[WHOLE]["covered"]) == (len(TARGET), 1.0)


def test_nothing_known_or_empty_is_written(found):
    made, asked = found
    texts = [(t.row, t.seed, t.text) for t in made.written]
    assert len(set(texts)) == len(texts)
    known = {t.text for t in [*TRAINING, *TARGET]}
    assert all(text and text not in known for _, _, text in texts)
    assert all(prompt for prompt in asked)


def test_examples_are_of_the_label_asked_for(found):
    made, _ = found
    contents = {t.text: t.label for t in [*TRAINING, *TARGET]}
    training = {t.text for t in TRAINING}
    for text in made.written:
        assert {contents[shown] for shown in text.shown} == {text.label}
        assert (set(text.shown) <= training) == (text.row == RANDOM_TRAINING)


def test_scores_stand_beside_those_of_training_alone(found):
    scores = found[0].record["rows"]
    for way in ("stream", "words"):
        alone = scores[ALONE]["scores"][way]
        assert (alone["ahead"], len(alone["by_seed"])) == (0.0, 1)
        for row in ROWS:
            one = scores[row]["scores"][way]
            assert one["ahead"] == pytest.approx(one["accuracy"] - alone["accuracy"], abs=1e-6)
            assert len(one["by_seed"]) == 2


def test_where_nothing_comes_nothing_is_added(model, suite):
    made = synthesised(model, suite, TRAINING, TARGET, each_by(lambda _: "ab"), {})
    rows = made.record["rows"]
    assert all(rows[row]["texts"] == 0 for row in ROWS if row != WHOLE)
    assert rows[ASKED]["covered"] == rows[ALONE]["covered"]
    assert rows[ASKED]["scores"] is None


def test_what_cannot_be_asked_for_is_said(model, suite):
    nobody = each_by(lambda _: "")
    with pytest.raises(ValueError, match="there is nothing to ask for"):
        synthesised(model, suite, TRAINING, TRAINING, nobody, {})
    with pytest.raises(ValueError, match="there are 0 training and 6 target texts"):
        synthesised(model, suite, [], TARGET, nobody, {})
    with pytest.raises(ValueError, match="the training texts have one label"):
        synthesised(model, suite, TRAINING[:2], TARGET, nobody, {}, test=TEST)
    with pytest.raises(ValueError, match="tries is 0: expected at least 1"):
        SynthesisConfig(tries=0)
    with pytest.raises(ValueError, match="separator is 'x': expected blanks"):
        WritingConfig(separator="x")
    with pytest.raises(ValueError, match="temperature is -1.0"):
        WritingConfig(temperature=-1.0)
    with pytest.raises(ValueError, match="tokens is 0"):
        WritingConfig(tokens=0)


def test_an_instruction_says_what_people_call_a_feature_and_nothing_else(model, suite):
    asked = []
    some = SynthesisConfig(features=40, tries=1, seeds=1)

    def writes(names):
        asked.clear()
        writer = each_by(lambda prompt: asked.append(prompt) or "")
        return synthesised(model, suite, TRAINING, TARGET, writer, names, config=some).record

    first = writes({})["asked"][0]
    assert first["label"]
    assert not any("have to do with" in prompt for prompt in asked)
    writes({first["feature"]: "what pilots say"})
    assert sum("They have to do with: what pilots say" in prompt for prompt in asked) == 1


def test_the_same_is_written_on_another_device(other, suite):
    def made(device):
        model = toy(dtype=torch.float32).to(device)
        model.tokenizer = toy_tokenizer()
        config = SynthesisConfig(features=2, tries=1, seeds=1)
        writer = each_by(lambda prompt: f"{prompt} b")
        return synthesised(
            model, suite, TRAINING, TARGET, writer, {}, config=config, writing=CONTINUED
        ).record

    with other.complaining():
        there = made(other.name)
    other.agrees(there, made("cpu"))
