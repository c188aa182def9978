"""Shapes of dictionaries, of those that are there and of those that are not made."""

from hooked_qwen.sites import Site
from saes.formats.shapes import DictionaryShape
from tests.toys import (
    SIZES,
)


def shapes_of(suite):
    return [
        DictionaryShape(
            name=d.name,
            source=d.source,
            target=d.target,
            features=d.n_features,
            k=d.spec.k,
            bytes=sum(b.nbytes for b in d.buffers()),
            stored=0,
        )
        for d in suite.values()
    ]


def wide(features, n=28):
    """Dictionaries of the shape of Qwen-Scope's for Qwen3-1.7B."""
    return [
        DictionaryShape(
            name=f"resid_post.{layer}",
            source=Site("resid_post", layer),
            target=Site("resid_post", layer),
            features=features,
            k=50,
            bytes=4 * 2 * features * SIZES["hidden_size"],
            stored=4 * 2 * features * SIZES["hidden_size"],
        )
        for layer in range(n)
    ]
