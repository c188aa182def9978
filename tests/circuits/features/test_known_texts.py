"""Training, target and test texts as they are read once."""

import pytest
import torch

from circuits.features.known_texts import KnownTexts
from circuits.features.written import SyntheticText
from saes.evaluation.probing import Labelled
from saes.scope.activity import activity_of
from tests.circuits.features.test_synthesis import TARGET, TEST, TRAINING
from tests.toys import speaking_toy, toy_suite


@pytest.fixture(scope="module")
def known():
    model = speaking_toy(dtype=torch.float32)
    suite = toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)
    return KnownTexts(model, suite, TRAINING, TARGET, TEST, seed=0)


def test_each_part_has_its_texts_and_what_they_turn_on(known):
    assert [known.training.texts, known.target.texts, known.test.texts] == [TRAINING, TARGET, TEST]
    for part in (known.training, known.target, known.test):
        found = activity_of(known.model, known.suite, [text.text for text in part.texts])
        assert part.incidence.sample.tolist() == found.text.tolist()
        assert part.incidence.unit.tolist() == found.feature.tolist()
        assert len(part.means) == len(part.rows) == len(part.texts)
    assert known.contents == [text.text for text in [*TRAINING, *TARGET]]
    assert len(known.control_activity) == len(known.contents)
    assert known.site.layer == 1


def test_texts_read_later_are_as_those_that_were_there(known):
    again = known.read(TARGET[:2])
    torch.testing.assert_close(again.means, known.target.means[:2])
    assert again.rows == known.target.rows[:2]
    assert len(known.read([]).texts) == len(known.read([]).means) == 0
    made = [SyntheticText(row="x", text=t.text, label=t.label, wanted=None, shown=(), seed=0)
            for t in TARGET[:2]]  # fmt: skip
    on = known.on(known.suite, made)
    assert on.unit.tolist() == again.incidence.unit.tolist()
    assert known.on(known.suite, []).samples == 0


def test_a_training_text_is_as_near_as_can_be_to_itself(known):
    shared, cosine = known.nearness(known.read([Labelled(TRAINING[3].text, "z")]))
    assert cosine == [pytest.approx(1.0, abs=1e-5)]
    far, _ = known.nearness(known.read([Labelled("Q R. K?", "z")]))
    assert shared[0] >= far[0]
