"""What a training is asked for: which dictionaries of which layers."""

from collections.abc import Sequence
from typing import Literal

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.sae import sae
from transcoders.transcoder import transcoder

Family = Literal["saes", "transcoders"]


def dictionary_specs(
    families: Sequence[Family],
    layers: Sequence[int],
    kinds: Sequence[str],
    *,
    k: int | None,
    architecture: str = "topk",
    skip: bool = False,
) -> list[DictionarySpec]:
    """The dictionaries to train: SAEs of `kinds` at each layer, a transcoder of each layer."""
    specs = []
    for layer in layers:
        if "saes" in families:
            specs += [sae(Site(kind, layer), k=k, architecture=architecture) for kind in kinds]
        if "transcoders" in families:
            specs.append(transcoder(layer, k=k, architecture=architecture, skip=skip))
    return specs
