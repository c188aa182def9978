"""Clean and reference values of every node of a prompt set.

At each site that dictionaries write, the tensor is

    x = sum over them of f @ W_dec + b_dec   + error

the features `f` and the error are the nodes, and the error is whatever the features do not write,
so the parts always add up to the tensor itself. The token embeddings are nodes too, one a position.

Norm outliers (mostly the first token, at which Qwen parks attention, with hundreds of times the
usual norm) are not set to zero or to a mean over other tokens: no dictionary was trained on them,
and without them the model is another one. They stay as they are and count in no such mean. Set
to their patch values, or to the mean of a position that holds outliers only, they are nodes like
others.

Axes: `batch` prompts, `pos` columns (prompts padded on the left), `slots` as in `saes.features`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeVar, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.decomposed_run import (
    EMBED,
    CleanAndPatchRuns,
    DecomposedRun,
    RecordedRun,
    decompose,
    run_plain,
)
from circuits.attribution.means import Means
from circuits.baseline_values import BaselineValue
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import BlockArguments, LastLogits
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features
from saes.suite import Suite

Columns = Literal["all", "own"]
"Of a batch: those of the prompt set, or without those that are padding of all its prompts."
T = TypeVar("T")
KEPT = 64e6
"Bytes of batches that are kept where nobody says how much memory there is."


@dataclass(frozen=True)
class FeatureState:
    """The features of one dictionary, on the clean prompts and at the reference."""

    f: Features
    reference: Features
    "axes of length 1 are the same for all prompts, or all positions"
    replaced: Bool[Tensor, "batch pos"]
    "tokens at which features take their reference values"
    slope: Features
    "change of each feature per change of its pre-activation"
    response: Features | None = None
    "under an edit: change of what stands per change of what is encoded, less 1"

    @property
    def change(self) -> Features:
        """Reference less clean, every feature in one slot."""
        return self.reference.minus(self.f).coalesced().times(self.replaced.unsqueeze(-1))


@dataclass(frozen=True)
class ErrorState:
    """The error of one site, on the clean prompts and at the reference."""

    error: Float[Tensor, "batch pos d_model"]
    reference: Float[Tensor, "batch pos d_model"]
    response: Float[Tensor, "batch pos"] | None = None
    "under an edit: change of what stands per change of the error that arrives"

    @property
    def change(self) -> Float[Tensor, "batch pos d_model"]:
        return self.reference - self.error


@dataclass(frozen=True)
class BatchState:
    """Everything the estimators and the oracle need to know of one batch of prompts."""

    rows: Int[Tensor, " batch"]
    "index of each prompt in the prompt set"
    clean: Batch
    values: Mapping[Site, Float[Tensor, "batch pos d_model"]]
    "the clean run's tensors: every site written or read, `resid_pre`, and the embeddings"
    features: dict[str, FeatureState]
    "by dictionary"
    errors: dict[Site, ErrorState]
    "by site that dictionaries write"
    outlier: Mapping[str, Bool[Tensor, "batch pos"]]
    "norm outliers, by dictionary and by site written: over ten times the median norm of the "
    "prompt's tokens, at any site that is read or written, on the clean run"
    embed_change: Float[Tensor, "batch pos d_model"]
    logits: LastLogits
    patch_logits: LastLogits | None
    arguments: BlockArguments
    under: Callable[[Int[Tensor, " rows"]], AbstractContextManager[None]] = lambda index: (
        nullcontext()
    )
    "puts the edit that the prompts run under into the model, where row i is prompt `index[i]`"

    @cached_property
    def every_row(self) -> Int[Tensor, " batch"]:
        """The index of a run of all prompts, each once."""
        return torch.arange(len(self.rows), device=self.rows.device)

    @property
    def n_positions(self) -> int:
        return self.clean.tokens.shape[1]

    def size(self) -> int:
        """Bytes of the tensors that it holds."""
        kept = ((s.f, s.reference, s.response) for s in self.features.values())
        features = (x for nodes in kept for x in nodes if x is not None)
        errors = (x for nodes in self.errors.values() for x in (nodes.error, nodes.reference))
        cache = self.arguments.cache
        tensors = [
            *self.values.values(),
            *(part for f in features for part in (f.index, f.value)),
            *errors,
            *(x for pair in (cache.by_layer.values() if cache else ()) for x in pair),
            self.logits,
        ]
        apart = {x.untyped_storage().data_ptr(): x for x in tensors}
        return sum(x.untyped_storage().nbytes() for x in apart.values())

    def tensor_change(self, suite: Suite, site: Site) -> Float[Tensor, "batch pos d_model"]:
        """How the site's tensor changes when all its nodes take their reference values."""
        return self.errors[site].change + sum(
            suite[name].by_site(suite[name].write(self.features[name].change))[site]
            for name in suite.writing(site)
        )


class States(Sequence[BatchState]):
    """A prompt set batch by batch, each made when it is asked for.

    The first that fit into `keep` bytes are kept, and the one asked for last: however many
    prompts there are, they take no more memory.
    """

    def __init__(self, make: Sequence[Callable[[], BatchState]], *, keep: float = KEPT) -> None:
        self._make, self._room = make, keep
        self._kept: dict[int, BatchState] = {}
        self._last: tuple[int, BatchState] | None = None

    def __len__(self) -> int:
        return len(self._make)

    @overload
    def __getitem__(self, at: int) -> BatchState: ...
    @overload
    def __getitem__(self, at: slice) -> "States": ...
    def __getitem__(self, at: int | slice) -> "BatchState | States":
        if isinstance(at, slice):
            return States(self._make[at], keep=self._room)
        at = range(len(self))[at]
        if at in self._kept:
            return self._kept[at]
        if self._last is None or self._last[0] != at:
            # Room for the next one before it is made.
            self._last = None
            self._last = at, self._make[at]()
            size = self._last[1].size()
            if size <= self._room:
                self._room -= size
                self._kept[at] = self._last[1]
        return self._last[1]


def each(states: Sequence[BatchState], say: Callable[[BatchState], T]) -> list[T]:
    """What `say` says of each of the batches.

    A loop over states would hold one while the next is made.
    """
    return [say(states[i]) for i in range(len(states))]


def batches(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    *,
    reference: BaselineValue,
    batch_size: int,
    means: Means | None = None,
    columns: Columns = "all",
) -> States:
    """The prompt set in batches, every site decomposed.

    `reference` is what nodes are set to: their value on the patch prompt, zero, or `means`.
    Where nothing counts columns from the left, each batch can have its `own` ones alone.

    Raises `ValueError` when that is a patch that the prompts do not have.
    """
    device = device_of(model)
    check_patch(reference, prompts.patch)

    def part(half: Batch, rows: Int[Tensor, " batch"]) -> Batch:
        found = half.rows(rows)
        return (found if columns == "all" else found.trimmed()).to(device)

    def make(rows: Int[Tensor, " batch"]) -> BatchState:
        clean = part(prompts.clean, rows)
        run, patched = run_plain(model, suite, clean), None
        if prompts.patch is not None:
            patched = run_plain(model, suite, part(prompts.patch, rows))
        moved_to = patched if reference == "patch" else None
        found = decompose(suite, run, moved_to, reference=reference)
        return batch_state(rows.to(device), clean, found, patched, reference, means)

    parts = torch.arange(len(prompts)).split(batch_size)
    return States([partial(make, rows) for rows in parts], keep=suite.room_for_states(KEPT))


def check_patch(reference: BaselineValue, patch: object) -> None:
    """Raise `ValueError` when nodes are to be set to a patch that is not there."""
    if reference == "patch" and patch is None:
        raise ValueError(
            "the prompts have no patch: give each one a patch, or use the reference zero or mean"
        )


def batch_state(
    rows: Int[Tensor, " batch"],
    clean: Batch,
    found: CleanAndPatchRuns,
    patched: RecordedRun | None,
    reference: BaselineValue,
    means: Means | None,
) -> BatchState:
    """What the nodes of the prompts `clean` are, and their reference values.

    Raises `ValueError` when they are to be set to those of a patch that they do not have.
    """
    check_patch(reference, found.patch)
    recorded, run = found.clean, found.clean.run
    replaced = {key: _replaced(run, key, clean.mask, reference, means) for key in run.outlier}
    patch = found.patch if reference == "patch" else None
    features = {
        name: FeatureState(
            f, _feature_reference(f, patch, means, name), replaced[name], found.slopes[name]
        )
        for name, f in recorded.features.items()
    }
    errors = {}
    for site, error in recorded.errors.items():
        reference_error = torch.zeros_like(error)
        if patch is not None:
            reference_error = patch.errors[site]
        elif means is not None:
            reference_error = means.error[site].expand_as(error)
        errors[site] = ErrorState(
            error, torch.where(replaced[str(site)].unsqueeze(-1), reference_error, error)
        )
    embed_change = torch.zeros_like(run.values[EMBED])
    if patch is not None:
        embed_change = patch.run.values[EMBED] - run.values[EMBED]
    return BatchState(
        rows,
        clean,
        run.values,
        features,
        errors,
        run.outlier,
        embed_change,
        run.logits,
        None if patched is None else patched.logits,
        run.arguments,
    )


def _replaced(
    run: RecordedRun,
    key: str,
    mask: Bool[Tensor, "batch pos"],
    reference: BaselineValue,
    means: Means | None,
) -> Bool[Tensor, "batch pos"]:
    """The tokens at which nodes are set to the reference: no padding, no outliers that stay."""
    if reference == "patch":
        return mask
    stays = run.outlier[key]
    return mask & ~(stays if means is None else stays & ~means.of_outliers[key])


def _feature_reference(
    f: Features, patch: DecomposedRun | None, means: Means | None, name: str
) -> Features:
    if patch is not None:
        return patch.features[name]
    return Features.none((1, 1), f.width, f.value) if means is None else means.f[name][None]
