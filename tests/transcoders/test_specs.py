"""Which dictionaries a training is asked for."""

import pytest

from transcoders.specs import dictionary_specs


def names(families, kinds=("resid_post", "mlp_out"), **options):
    return [spec.name for spec in dictionary_specs(families, [0, 2], kinds, k=4, **options)]


def test_each_layer_has_an_sae_of_each_kind_and_one_transcoder():
    saes = ["resid_post.0", "mlp_out.0", "resid_post.2", "mlp_out.2"]
    transcoders = ["mlp_in.0-mlp_out.0", "mlp_in.2-mlp_out.2"]
    assert names(["saes"]) == saes
    assert names(["transcoders"]) == transcoders
    both = names(["transcoders", "saes"])
    assert both == [*saes[:2], transcoders[0], *saes[2:], transcoders[1]]


def test_only_transcoders_have_a_skip_connection():
    specs = dictionary_specs(["saes", "transcoders"], [1], ["mlp_out"], k=4, skip=True)
    assert [spec.skip for spec in specs] == [False, True]


def test_an_architecture_that_needs_a_k_says_so():
    specs = dictionary_specs(["saes"], [1], ["mlp_out"], k=None, architecture="relu")
    assert [(spec.architecture, spec.k) for spec in specs] == [("relu", None)]
    with pytest.raises(ValueError, match="topk needs a k"):
        dictionary_specs(["saes"], [1], ["mlp_out"], k=None)
