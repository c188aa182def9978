"""In which precision the model computes while dictionaries learn from its activations.

On a real model nearly all of a training's time is the model's forward pass, which many processors
do two to three times as fast in bfloat16. What that costs is an error of the activations,

    error = sum |x_bf16 - x|^2 / sum |x - mean(x)|^2        over tokens that are no outlier

in units of the fraction of variance that a dictionary leaves unexplained (FVU): a dictionary that
learns from rounded activations cannot explain them better than to this. Dictionaries are judged
with the model as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of, name_of
from hooked_qwen.precision import computed_in, model_precision
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier
from hooked_qwen.threads import SHARED_FROM
from hooked_qwen.tokens import Batch

Harvest = Literal["auto", "float32", "bfloat16"]
SAFE = 0.01
"Error at any site up to which `auto` takes bfloat16."
BLOCKS = 4
"Blocks of text that the error is measured on."


@dataclass(frozen=True, kw_only=True)
class Harvesting:
    """The precision that was chosen, and why."""

    dtype: str
    why: str
    "in one line"
    errors: Mapping[str, float]
    "of bfloat16 at each site, where they were measured"

    def record(self) -> dict[str, Any]:
        """As training records it: the same from a cache that was written in that precision."""
        return {"dtype": self.dtype, "errors": dict(self.errors)}


def choose_harvest(
    model: TransformerBridge,
    sites: Sequence[Site],
    blocks: Int[Tensor, "blocks pos"],
    asked: Harvest,
) -> Harvesting:
    """What to harvest in; `auto` takes bfloat16 where that is faster and safe, by measurement.

    A model that is not in float32 stays as it is: its precision is the user's choice.
    """
    own = name_of(model_precision(model))
    if own != "float32":
        return Harvesting(dtype=own, why=f"the model is in {own}", errors={})
    if asked != "auto":
        return Harvesting(dtype=asked, why="as asked for", errors={})
    size = model.cfg.d_model * (model.cfg.d_mlp or 0)
    if reason := not_faster(size, device_of(model)):
        return Harvesting(dtype="float32", why=reason, errors={})
    errors = rounding_errors(model, sites, blocks[:BLOCKS])
    worst = max(errors, key=lambda site: errors[site])
    told = f"of bfloat16 is {errors[worst]:.2g} of the variance at {worst}"
    named = {str(site): error for site, error in errors.items()}
    # A comparison that is also false where the error is no number.
    if errors[worst] <= SAFE:
        return Harvesting(dtype="bfloat16", why=f"the largest error {told}", errors=named)
    return Harvesting(dtype="float32", why=f"the error {told}, over {SAFE:g}", errors=named)


def rounding_errors(
    model: TransformerBridge, sites: Sequence[Site], blocks: Int[Tensor, "blocks pos"]
) -> dict[Site, float]:
    """The error of the activations of the model in bfloat16, at each site."""
    whole = _activations(model, sites, blocks)
    with computed_in(model, torch.bfloat16):
        rounded = _activations(model, sites, blocks)
    return {site: _error(whole[site], rounded[site]) for site in sites}


@torch.no_grad()
def _activations(
    model: TransformerBridge, sites: Sequence[Site], blocks: Int[Tensor, "blocks pos"]
) -> dict[Site, Float[Tensor, "tokens d"]]:
    batch = Batch(tokens=blocks, mask=torch.ones_like(blocks, dtype=torch.bool))
    with capture(model, sites) as seen:
        run_through(model, batch, max(site.layer for site in sites))
    return {site: seen[site].flatten(0, 1) for site in sites}


def _error(x: Float[Tensor, "tokens d"], rounded: Float[Tensor, "tokens d"]) -> float:
    keep = ~is_outlier(x)
    x, rounded = x[keep].double(), rounded[keep].double()
    return float((rounded - x).square().sum() / (x - x.mean(0)).square().sum())


def not_faster(size: int, device: torch.device) -> str | None:
    """Why bfloat16 is not known to be faster for a model whose largest matrix has `size` entries.

    None where it is.
    """
    if size < SHARED_FROM:
        return "the model is small"
    if not multiplies_bfloat16(device):
        kind = "processor" if device.type == "cpu" else "GPU"
        return f"this {kind} does not multiply bfloat16"
    return None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
