"""What is told of texts that were written: counts, shares and scores of each row."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from circuits.features.known_texts import KnownTexts
from circuits.features.named import Named
from circuits.features.synthesis_record import (
    ALONE,
    ASKED,
    ROWS,
    SeedAddition,
    SynthesisConfig,
    record_of,
)
from circuits.features.writers import WritingConfig
from circuits.features.written import SyntheticText, wanted_features
from tests.circuits.features.test_synthesis import TARGET, TRAINING
from tests.toys import speaking_toy, toy_suite

CONFIG = SynthesisConfig(features=2, tries=1, seeds=1)


@pytest.fixture(scope="module")
def known():
    model = speaking_toy(dtype=torch.float32)
    suite = toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)
    return KnownTexts(model, suite, TRAINING, TARGET, [], seed=0)


@pytest.fixture(scope="module")
def wanted(known):
    named = Named(known.model, known.suite, {})
    return wanted_features(known.activity, len(TRAINING), TARGET, named, least=1, most=2)


def record(known, wanted, added, written):
    nothing = SeedAddition(known.read([]), [])
    rows = dict.fromkeys(ROWS, nothing) | {ASKED: SeedAddition(known.read(added), written)}
    return record_of(known, wanted, [rows], CONFIG, WritingConfig())


def test_the_whole_target_added_covers_all_of_it(known, wanted):
    found = record(known, wanted, TARGET, [])["rows"]
    assert (found[ASKED]["covered"], found[ASKED]["asked_covered"]) == (1.0, 1.0)
    assert found[ASKED]["texts"] == len(TARGET)
    assert found[ALONE]["covered"] < 1
    assert found[ALONE]["asked_covered"] == 0.0
    assert found[ASKED]["scores"] is None, "there are no test texts"


def test_how_often_a_feature_came_is_told_of_each(known, wanted):
    first, second = wanted
    text = SyntheticText(
        row=ASKED, text="Q", label=first.label, wanted=first, shown=first.shown[:1], seed=0
    )
    written = [
        replace(text, kept=True, fired=(first.feature,)),
        text,
        replace(text, wanted=second, fired=()),
    ]
    found = record(known, wanted, [], written)
    told = [(one["written"], one["fired"]) for one in found["asked"]]
    assert told == [(2, 1), (1, 0)]
    assert found["rows"][ASKED]["fired"] == pytest.approx(1 / 3)
    assert found["rows"][ALONE]["fired"] is None
    assert found["texts"] == {"training": len(TRAINING), "target": len(TARGET), "test": 0}
    assert found["labels"] == sorted(Counter(t.label for t in TRAINING))


@pytest.mark.parametrize("name", ["features", "least", "tries", "shown", "seeds"])
def test_of_everything_there_is_one_at_least(name):
    with pytest.raises(ValueError, match=f"{name} is 0: expected at least 1"):
        SynthesisConfig(**{name: 0})
