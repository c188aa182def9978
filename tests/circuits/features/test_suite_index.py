"""Every feature of a suite in one record."""

import pytest

from circuits.features.neighbours import feature_card
from circuits.features.suite_index import suite_record
from hooked_qwen.tokens import token_strings
from tests.circuits.features.carded import NAMES


@pytest.fixture(scope="module")
def record(model, suite, store):
    return suite_record(model, suite, store, {"mlp_out.0": {"fvu": 0.25}})


def test_a_suite_record_holds_every_card(model, suite, store, record):
    arrays, words = record["arrays"], record["vocabulary"]
    feature = 0
    for each in suite:
        found = store.examples(each)
        for index in range(each.n_features):
            assert arrays["density"][feature] == pytest.approx(found.density(index))
            assert arrays["largest"][feature] == pytest.approx(found.largest(index) or 0.0)
            top = found.of(index, found.top)
            for place, example in enumerate(top):
                row, at = arrays["row"][feature, place], arrays["position"][feature, place]
                assert (
                    words[arrays["tokens"][row, at]]
                    == token_strings(model.tokenizer, [example.tokens[example.peak]])[0]
                )
            assert (arrays["row"][feature, len(top) : 5] == len(arrays["tokens"])).all()
            feature += 1
    assert len(record["labels"]) == feature == 60
    card = feature_card(model, suite, store, "mlp_out.1/3")
    assert record["labels"][27] == card["label"]
    assert [words[i] for i in arrays["promoted"][27]] == [t for t, _ in card["promoted"]]


def test_a_suite_record_says_what_its_dictionaries_are(record):
    assert [d["name"] for d in record["dictionaries"]] == list(NAMES)
    assert [d["first"] for d in record["dictionaries"]] == [0, 12, 24, 36, 48]
    assert [d["quality"] for d in record["dictionaries"]] == [{"fvu": 0.25}, {}, {}, {}, {}]


def test_a_page_of_too_many_features_is_refused(model, suite, store):
    with pytest.raises(ValueError, match="at most 59 features, these dictionaries have 60: choose"):
        suite_record(model, suite, store, {}, most=59)
