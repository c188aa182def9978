"""Sparse autoencoders: dictionaries that write where they read.

Source: Bricken et al. 2023; Cunningham et al. 2023, arXiv:2309.08600.
"""

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec

KINDS = ("resid_post", "attn_out", "mlp_out")


def sae(site: Site, *, k: int | None, architecture: str = "topk") -> DictionarySpec:
    """An autoencoder of the tensor at `site`.

    Raises `ValueError` for a site that a circuit has no use for, listing those it has.
    """
    if site.kind not in KINDS:
        raise ValueError(f"no SAE is trained at {site}: expected one of {', '.join(KINDS)}")
    return DictionarySpec(source=site, target=site, architecture=architecture, k=k)
