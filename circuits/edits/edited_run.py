"""One batch of prompts under an edit: what every kind of edit says of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution.decomposed_run import CleanAndPatchRuns
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True)
class EditedRun:
    """The clean and the patch prompts of a batch, run under an edit."""

    batch: Batch
    nodes: CleanAndPatchRuns
    "as they stand under the edit"
    held: Callable[[str, Features], Bool[Tensor, "batch pos slots"]]
    "which features of a dictionary keep their clean values, whatever the reference"
    held_errors: Callable[[Site], Bool[Tensor, "batch pos"]]
    "at which tokens the error of a site stands still"
    under: Callable[[Int[Tensor, " rows"]], AbstractContextManager[None]]
    "puts the edit into the model, where row i of a pass is prompt `index[i]`"
    responses: Mapping[str, Features] = field(default_factory=dict)
    "by dictionary, change of what stands per change of what is encoded, less 1"
    error_responses: Mapping[Site, Float[Tensor, "batch pos"]] = field(default_factory=dict)
    "the same of errors, not less 1"


def read_elsewhere(suite: Suite) -> set[Site]:
    """The sites that a dictionary reads and does not write.

    A run that begins after them, at a site that it writes, does not see them.
    """
    return {s for name in suite for s in suite.reads_of(name) if s not in suite.writes_of(name)}


def columns_of(tokens: Float[Tensor, "batch pos *width"]) -> Int[Tensor, "batch pos"]:
    """The column of each token."""
    shape = tokens.shape[:2]
    return torch.arange(shape[1], device=tokens.device).expand(shape)
