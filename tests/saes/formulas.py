"""Dictionaries of every kind, and their features by the formula: dense, from the matrices alone."""

import torch
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.evaluation.baselines import neurons
from saes.suite import Suite
from tests.toys import random_dictionary, toy_suite

KINDS = ("topk", "signed topk", "relu", "jumprelu", "coordinates")
OPTIONS = {
    "topk": {"architecture": "topk", "k": 5},
    "signed topk": {"architecture": "topk", "k": 5, "signed": True},
    "relu": {"architecture": "relu"},
    "jumprelu": {"architecture": "jumprelu"},
}


def suite_of(kind: str, *sites: str, dtype: torch.dtype = torch.float64) -> Suite:
    """Random dictionaries of one kind; sites as in `tests.toys.toy_suite`."""
    if kind == "coordinates":
        return neurons(toy_suite(*sites, dtype=dtype))
    found = {}
    for seed, text in enumerate(sites):
        source, _, target = text.partition("-")
        spec = DictionarySpec(
            source=Site.parse(source), target=Site.parse(target or source), **OPTIONS[kind]
        )
        found[spec.target] = random_dictionary(spec, seed=seed, dtype=dtype)
    return Suite(found, {})


def encode(dictionary: SparseDictionary, x: Tensor) -> Tensor:
    """Every feature of the source activations `x`, zeros and all."""
    spec, pre = dictionary.spec, x @ dictionary.W_enc.T + dictionary.b_enc
    if spec.architecture != "topk":
        return (
            pre.relu()
            if dictionary.threshold is None
            else pre.relu() * (pre > dictionary.threshold)
        )
    least = pre.detach().sort(-1, descending=True).values[..., spec.k - 1, None]
    return (pre if spec.signed else pre.relu()) * (pre >= least)
