"""A feature by its dictionary, its neighbours and its siblings in other layers."""

import pytest

from circuits.features.neighbours import feature_card, find_feature, siblings


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


def test_the_nearest_features_are_those_of_largest_cosine(model, suite, store):
    card = feature_card(model, suite, store, "mlp_out.1/3")
    own = suite[2]
    for key, weight in (("decoder", own.W_dec), ("encoder", own.W_enc)):
        others = {i: cosine(weight[3], weight[i]) for i in range(12) if i != 3}
        best = sorted(others, key=lambda i: -others[i])[:5]
        assert [n["feature"] for n in card["nearest"][key]] == [f"mlp_out.1/{i}" for i in best]
        found = [n["cosine"] for n in card["nearest"][key]]
        assert found == pytest.approx([others[i] for i in best], rel=1e-4)
    for match, other in zip(card["nearest"]["layers"], (suite[0], suite[4]), strict=True):
        values = [cosine(own.W_dec[3], row) for row in other.W_dec]
        assert match["feature"] == f"{other.target}/{values.index(max(values))}"
        assert match["cosine"] == pytest.approx(max(values), rel=1e-4)


def test_siblings_are_of_the_same_kind_in_other_layers(suite):
    specs = [d.spec for d in suite]
    assert siblings(2, specs) == [0, 4]
    assert siblings(1, specs) == siblings(3, specs) == []


def test_a_feature_goes_by_its_dictionary_or_a_target_of_its_own(suite):
    assert find_feature("mlp_out.1/3", suite) == (2, 3)
    assert find_feature("mlp_in.1-mlp_out.1/0", suite) == (1, 0)
    assert find_feature("mlp_out.1/11", suite[:2]) == (1, 11)


@pytest.mark.parametrize(
    "text", ["mlp_out.7/3", "mlp_out.1", "mlp_out.1/", "mlp_out.1/-2", "mlp_out.1/x", ""]
)
def test_a_feature_that_is_not_there(suite, text):
    with pytest.raises(ValueError, match=r"write DICTIONARY/INDEX.*one of mlp_out.0, mlp_in.1-mlp"):
        find_feature(text, suite)


def test_an_index_past_the_last_feature(suite):
    with pytest.raises(ValueError, match="mlp_out.1 has features 0 to 11, not 12"):
        find_feature("mlp_out.1/12", suite)
