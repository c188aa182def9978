"""Weights that are no dictionary of a spec are refused, each with what it should be."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.architectures.table import ARCHITECTURES
from saes.dictionary import DictionarySpec
from saes.dictionary_spec import check_weights
from tests.saes.test_dictionary import spec, weights

HERE, THERE = Site("mlp_out", 1), Site("mlp_in", 1)
FEATURES, D_SOURCE, D_TARGET = 9, 4, 5


def test_an_unknown_tensor_is_named():
    with pytest.raises(ValueError, match="a dictionary has no tensor called W_gate"):
        check_weights(spec(), weights(W_gate=torch.zeros(2)))


@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
@pytest.mark.parametrize("axes", [0, 1, 3])
def test_a_matrix_has_two_axes(name, axes):
    with pytest.raises(ValueError, match=f"{name} has {axes} axes, expected 2"):
        check_weights(spec(), weights(**{name: torch.zeros((2,) * axes)}))


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("b_enc", (5,), "(9,)"),
        ("b_dec", (9,), "(5,)"),
        ("W_dec", (8, 5), "(9, 5)"),
        ("threshold", (), "(9,)"),
        ("threshold", (1,), "(9,)"),
        ("W_skip", (4, 5), "(5, 4)"),
    ],
)
def test_a_wrong_shape_is_told_with_the_right_one(name, found, expected):
    w = weights("jumprelu", **{name: torch.zeros(found)})
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_weights(spec("jumprelu"), w)
    assert str(error.value) == f"{name} has shape {found}, expected {expected}"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip"])
def test_numbers_are_finite(name, bad):
    w = weights("jumprelu", W_skip=torch.zeros(D_TARGET, D_SOURCE))
    w[name].view(-1)[1] = bad
    with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
        check_weights(spec("jumprelu"), w)


def test_an_sae_has_one_width():
    with pytest.raises(ValueError, match="an SAE reads and writes one site, but 4 != 5"):
        check_weights(spec(source=HERE), weights())
    check_weights(spec(source=HERE), weights(d_source=D_TARGET))


@pytest.mark.parametrize("k", [0, -1, FEATURES + 1])
def test_k_is_one_to_the_number_of_features(k):
    wrong = DictionarySpec(source=THERE, target=HERE, k=k)
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 9, the number of features"):
        check_weights(wrong, weights())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_threshold_is_there_exactly_where_it_is_used(architecture):
    w = weights(architecture)
    if "threshold" in w:
        del w["threshold"]
        match = f"'{architecture}' needs a threshold tensor"
    else:
        w["threshold"] = torch.zeros(FEATURES)
        match = f"'{architecture}' has no threshold tensor"
    with pytest.raises(ValueError, match=match):
        check_weights(spec(architecture), w)
