"""Dictionaries to compare with: what do trained features add over what was there before?"""

import torch

from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import Suite


def neurons(suite: Suite) -> Suite:
    """The coordinates of each target tensor as features, one for each sign; the error is zero.

    x = relu(x) - relu(-x)
    """
    return Suite({site: _coordinates(dictionary) for site, dictionary in suite.items()}, {})


def untrained(suite: Suite, *, seed: int = 0) -> Suite:
    """Dictionaries of the same shape with random weights, biased to the same mean.

    TopK with random unit rows, encoder and decoder transposes of each other, reading the target.
    """
    return Suite(
        {site: _random(dictionary, seed + i) for i, (site, dictionary) in enumerate(suite.items())},
        {},
    )


def _coordinates(dictionary: SparseDictionary) -> SparseDictionary:
    eye = torch.eye(dictionary.W_dec.shape[1]).to(dictionary.W_dec)
    both = torch.cat([eye, -eye])
    site = dictionary.target
    weights = {
        "W_enc": both,
        "W_dec": both,
        "b_enc": both.new_zeros(len(both)),
        "b_dec": both.new_zeros(len(eye)),
    }
    return SparseDictionary(DictionarySpec(source=site, target=site, architecture="relu"), weights)


def _random(dictionary: SparseDictionary, seed: int) -> SparseDictionary:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(dictionary.W_dec.shape, generator=generator).to(dictionary.W_dec)
    rows /= rows.norm(dim=-1, keepdim=True)
    site, k = dictionary.target, dictionary.spec.k or 32
    weights = {
        "W_enc": rows,
        "W_dec": rows,
        "b_enc": -rows @ dictionary.b_dec,
        "b_dec": dictionary.b_dec.clone(),
    }
    return SparseDictionary(DictionarySpec(source=site, target=site, k=k), weights)
