"""Where in a hooked model the tensor of a site passes."""

from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.sites import Site


def hook_point(model: TransformerBridge, site: Site) -> nn.Module:
    """The hook through which `site`'s tensor passes.

    Raises `ValueError` past the last layer, and for the neurons of a mixture of experts.
    """
    if site.kind == "embed":
        return model.get_submodule("embed.hook_out")
    if site.layer >= len(model.blocks):
        raise ValueError(
            f"the model has layers 0 to {len(model.blocks) - 1}, so there is no site {site}"
        )
    block = cast(Any, model.blocks[site.layer])
    match site.kind:
        case "resid_pre":
            return block.hook_in
        case "resid_post":
            return block.hook_out
        case "attn_out":
            return token_mixer(block).get_submodule("hook_out")
        case "resid_mid":
            return block.ln2.hook_in
        case "mlp_in":
            return block.mlp.hook_in
        case "mlp_hidden":
            if not has_neurons(model, [site.layer]):
                raise ValueError(f"the MLP of layer {site.layer} is a mixture: it has no {site}")
            return block.mlp.out.hook_in
        case _:
            return block.mlp.hook_out


def has_neurons(model: TransformerBridge, layers: Iterable[int]) -> bool:
    """Whether the MLPs of `layers` are dense: a mixture of experts has no `mlp_hidden`."""
    blocks = [cast(Any, model.blocks[layer]) for layer in layers]
    return all("out" in block.mlp.submodules for block in blocks)


def token_mixer(block: Any) -> nn.Module:
    """The block's attention, or its gated delta net in the hybrid models (Qwen3.5)."""
    return block.linear_attn if "linear_attn" in block.submodules else block.attn
