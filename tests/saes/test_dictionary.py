"""A dictionary computes the formulas of its architecture, and says which tensor is missing."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.architectures.table import ARCHITECTURES
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.sae import sae

HERE, THERE = Site("mlp_out", 1), Site("mlp_in", 1)
FEATURES, D_SOURCE, D_TARGET = 9, 4, 5


def spec(architecture="topk", source=THERE):
    k = 3 if architecture == "topk" else None
    return DictionarySpec(source=source, target=HERE, architecture=architecture, k=k)


def weights(architecture="topk", d_source=D_SOURCE, **changes):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "W_enc": draw(FEATURES, d_source),
        "b_enc": draw(FEATURES),
        "W_dec": draw(FEATURES, D_TARGET),
        "b_dec": draw(D_TARGET),
    }
    if architecture not in ("topk", "relu"):
        # Of both signs: a negative threshold must let nothing negative through.
        tensors["threshold"] = draw(FEATURES)
    return tensors | changes


def plain_features(architecture, w, x):
    """The formula, one token and one feature at a time."""
    f = torch.zeros(len(x), FEATURES, dtype=x.dtype)
    for n, token in enumerate(x):
        pre = [float(token @ w["W_enc"][i] + w["b_enc"][i]) for i in range(FEATURES)]
        largest = sorted(range(FEATURES), key=lambda i: -pre[i])[:3]
        for i, value in enumerate(pre):
            if architecture == "topk":
                kept = i in largest
            else:
                kept = architecture == "relu" or value > float(w["threshold"][i])
            f[n, i] = max(value, 0.0) if kept else 0.0
    return f


def inputs():
    return torch.randn(7, D_SOURCE, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("with_skip", [False, True], ids=["plain", "skip"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_arithmetic_of_each_architecture(architecture, with_skip):
    w, x = weights(architecture), inputs()
    skip = torch.randn(D_TARGET, D_SOURCE, dtype=torch.float64)
    dictionary = SparseDictionary(spec(architecture), w | ({"W_skip": skip} if with_skip else {}))
    f = plain_features(architecture, w, x)
    y = f @ w["W_dec"] + w["b_dec"] + (x @ skip.T if with_skip else 0)
    found = dictionary.encode(x)
    torch.testing.assert_close(found.dense(), f, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(dictionary(x), y, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(dictionary.decode(found) + dictionary.skip(x), y)
    assert (f > 0).any()
    assert (f >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_leading_axes_are_kept(architecture):
    dictionary = SparseDictionary(spec(architecture), weights(architecture))
    x = inputs()[:6]
    folded = dictionary(x.view(2, 3, D_SOURCE))
    torch.testing.assert_close(folded, dictionary(x).view(2, 3, D_TARGET))


def test_a_dictionary_has_buffers_and_no_parameters():
    dictionary = SparseDictionary(spec("jumprelu"), weights("jumprelu"))
    assert list(dictionary.parameters()) == []
    assert set(dictionary.state_dict()) == set(weights("jumprelu"))
    assert dictionary.n_features == FEATURES
    assert (dictionary.source, dictionary.target) == (THERE, HERE)


def test_a_dictionary_is_named_by_its_sites():
    assert spec(source=HERE).name == "mlp_out.1"
    assert spec(source=THERE).name == "mlp_in.1-mlp_out.1"


def test_an_sae_reads_what_it_writes():
    made = sae(Site("attn_out", 2), k=4)
    assert made == DictionarySpec(source=made.target, target=Site("attn_out", 2), k=4)
    with pytest.raises(ValueError, match=r"no SAE is trained at mlp_in\.1: expected one of resid"):
        sae(THERE, k=4)


def test_an_unknown_architecture_lists_the_known():
    with pytest.raises(ValueError, match=r"no architecture is called 'l1'") as error:
        DictionarySpec(source=HERE, target=HERE, architecture="l1")
    assert all(name in str(error.value) for name in ARCHITECTURES)


def test_topk_needs_a_k():
    with pytest.raises(ValueError, match="topk needs a k"):
        DictionarySpec(source=HERE, target=HERE)


def test_only_topk_keeps_negative_features():
    with pytest.raises(ValueError, match="only topk keeps negative features, not relu"):
        DictionarySpec(source=HERE, target=HERE, architecture="relu", signed=True)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec"])
def test_a_missing_tensor_is_named(name):
    w = weights()
    del w[name]
    with pytest.raises(ValueError, match=f"a dictionary needs {name}, which is not there"):
        SparseDictionary(spec(), w)
