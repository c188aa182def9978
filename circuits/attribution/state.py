"""Clean and reference values of every node of a prompt set.

At each site that dictionaries write, the tensor is

    x = sum over them of f @ W_dec + b_dec   + error

the features `f` and the error are the nodes, and the error is whatever the features do not write,
so the parts always add up to the tensor itself. The token embeddings are nodes too, one a position.

Norm outliers (mostly the first token, at which Qwen parks attention, with hundreds of times the
usual norm) do not move to zero or to a mean over other tokens: no dictionary was trained on them,
and without them the model is another one. They stay as they are and count in no such mean. Moved
to a patch, or to the mean of a position that holds outliers only, they are nodes like others.

Axes: `batch` prompts, `pos` columns (prompts padded on the left), `slots` as in `saes.features`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, overload

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import BlockArguments, LastLogits, run_recording
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.precision import our_precision
from hooked_qwen.sites import Site
from hooked_qwen.stream import OUTLIER_FACTOR, is_outlier_in_prompt
from hooked_qwen.tokens import Batch
from saes.dictionary import SparseDictionary
from saes.features import Features, FeatureSums
from saes.suite import Suite

Reference = Literal["patch", "zero", "mean"]
EMBED = Site("embed")
KEPT = 64e6
"Bytes of batches that are kept where nobody says how much memory there is."
SMALLEST_MOVE, LARGEST_SLOPE = 1e-3, 3.0
Positions = Int[Tensor, "batch pos"]


@dataclass(frozen=True)
class FeatureState:
    """The features of one dictionary, on the clean prompts and at the reference."""

    f: Features
    reference: Features
    "axes of length 1 are the same for all prompts, or all positions"
    moves: Bool[Tensor, "batch pos"]
    "tokens at which features move to the reference"
    slope: Features
    "how far each feature answers a change of its pre-activation"

    @property
    def change(self) -> Features:
        """Reference less clean, every feature in one slot."""
        return self.reference.minus(self.f).coalesced().times(self.moves.unsqueeze(-1))


@dataclass(frozen=True)
class ErrorState:
    """The error of one site, on the clean prompts and at the reference."""

    error: Float[Tensor, "batch pos d_model"]
    reference: Float[Tensor, "batch pos d_model"]

    @property
    def change(self) -> Float[Tensor, "batch pos d_model"]:
        return self.reference - self.error


@dataclass(frozen=True)
class BatchState:
    """Everything the estimators and the oracle need to know of one batch of prompts."""

    rows: Int[Tensor, " batch"]
    "index of each prompt in the prompt set"
    clean: Batch
    values: dict[Site, Float[Tensor, "batch pos d_model"]]
    "the clean run's tensors: every site written or read, `resid_pre`, and the embeddings"
    features: dict[str, FeatureState]
    "by dictionary"
    errors: dict[Site, ErrorState]
    "by site that dictionaries write"
    outlier: dict[str, Bool[Tensor, "batch pos"]]
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
        features = (x for nodes in self.features.values() for x in (nodes.f, nodes.reference))
        errors = (x for nodes in self.errors.values() for x in (nodes.error, nodes.reference))
        past = self.arguments.past
        tensors = [
            *self.values.values(),
            *(part for f in features for part in (f.index, f.value)),
            *errors,
            *(x for pair in (past.by_layer.values() if past else ()) for x in pair),
            self.logits,
        ]
        apart = {x.untyped_storage().data_ptr(): x for x in tensors}
        return sum(x.untyped_storage().nbytes() for x in apart.values())

    def tensor_change(self, suite: Suite, site: Site) -> Float[Tensor, "batch pos d_model"]:
        """How the site's tensor changes when all its nodes move to the reference."""
        return self.errors[site].change + sum(
            suite[name].by_site(suite[name].write(self.features[name].change))[site]
            for name in suite.writing(site)
        )


@dataclass(frozen=True)
class Recorded:
    """One run of a batch of prompts: its tensors, and what the nodes are in them."""

    values: dict[Site, Float[Tensor, "batch pos d_model"]]
    read: dict[str, Float[Tensor, "batch pos d_source"]]
    "what each dictionary read"
    encoded: dict[str, Features]
    "the features of that"
    features: dict[str, Features]
    "those that stand at the sites written: the same, but for what an edit sets"
    outlier: dict[str, Bool[Tensor, "batch pos"]]
    "by dictionary and by site written"
    logits: LastLogits
    arguments: BlockArguments

    def error(self, suite: Suite, site: Site) -> Float[Tensor, "batch pos d_model"]:
        """What is left of the site's tensor without what its dictionaries write."""
        found = self.values[site]
        for name in suite.writing(site):
            dictionary = suite[name]
            found = found - dictionary.by_site(dictionary.decode(self.features[name]))[site]
        return found


@dataclass(frozen=True)
class Means:
    """Mean features and errors over a set of runs, for ablation and as a reference.

    By position where positions are kept, else over all tokens (`pos` has length 1). Norm outliers
    count only where there is nothing else.
    """

    f: dict[str, Features]
    "`[pos, slots]`, by dictionary"
    error: dict[Site, Float[Tensor, "pos d_model"]]
    of_outliers: dict[str, Bool[Tensor, " pos"]]
    "where there is nothing else, by dictionary and by site written"


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


def batches(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    *,
    reference: Reference,
    batch_size: int,
    means: Means | None = None,
) -> States:
    """The prompt set in batches, every site decomposed.

    `reference` is what nodes are moved to: their value on the patch prompt, zero, or `means`.

    Raises `ValueError` when that is a patch that the prompts do not have.
    """
    device = device_of(model)
    check_patch(reference, prompts.patch)

    def make(rows: Int[Tensor, " batch"]) -> BatchState:
        clean = prompts.clean.rows(rows).to(device)
        run = record(model, suite, clean)
        patched = None
        if prompts.patch is not None:
            patched = record(model, suite, prompts.patch.rows(rows).to(device))
        return batch_state(suite, rows.to(device), clean, run, patched, reference, means)

    parts = torch.arange(len(prompts)).split(batch_size)
    return States([partial(make, rows) for rows in parts], keep=suite.room_for_states(KEPT))


def check_patch(reference: Reference, patch: object) -> None:
    """Raise `ValueError` when nodes are to be moved to a patch that is not there."""
    if reference == "patch" and patch is None:
        raise ValueError(
            "the prompts have no patch: give each one a patch, or use the reference zero or mean"
        )


def slopes(
    dictionary: SparseDictionary,
    f: Features,
    reference: Features,
    moved: Float[Tensor, "batch pos d_source"],
) -> Features:
    """Change of each feature over the change of its pre-activation, from clean to reference.

        slope = (f' - f) / (p' - p)      between 0 and 3; where p hardly moves, 1 if f is on

    `moved` is how what the dictionary reads changes. Features that are off at both have slope 0
    and are left out.

    The gradient at the clean run is 1 for a feature that is on and 0 for one that is off, whatever
    happens on the way: features that switch on or off, which are most of those that matter in a
    pair of prompts, would answer too much or not at all, and the error would take the rest.
    """
    change = reference.minus(f).coalesced()
    # Sorted by the same indices, so that both have a feature in the same slot.
    active = reference.times(torch.zeros_like(reference.value)).plus(f.on()).coalesced().value
    answer = dictionary.answers(moved, change.index)
    ratio = change.value / torch.where(answer == 0, 1.0, answer)
    small = answer.abs() <= SMALLEST_MOVE * dictionary.largest_answer(moved).unsqueeze(-1)
    slope = torch.where(small, active, ratio.clamp(0.0, LARGEST_SLOPE))
    return Features(change.index, slope, change.width, change.whole)


def site_values(
    model: TransformerBridge, suite: Suite, batch: Batch
) -> tuple[dict[Site, Tensor], LastLogits, BlockArguments]:
    """One recorded run: the tensors at every site that states and resuming need."""
    written = suite.writes
    starts = {Site("resid_pre", site.layer) for site in written}
    last = Site("resid_post", len(model.blocks) - 1)
    posts = {Site("resid_post", site.layer) for site in written}
    wanted = {EMBED, last, *starts, *posts, *written, *suite.reads}
    with torch.no_grad(), capture(model, wanted) as values:
        logits, arguments = run_recording(model, batch, keep_past=True)
    return values, logits, arguments


def record(model: TransformerBridge, suite: Suite, batch: Batch) -> Recorded:
    """Run `batch` and decompose every site."""
    values, logits, arguments = site_values(model, suite, batch)
    read = {name: suite.read(name, values) for name in suite}
    encoded = {name: dictionary.encode(read[name]) for name, dictionary in suite.items()}
    outlier = outliers(suite, values, batch.mask)
    return Recorded(values, read, encoded, encoded, outlier, logits, arguments)


def outliers(
    suite: Suite, values: Mapping[Site, Tensor], mask: Bool[Tensor, "batch pos"]
) -> dict[str, Bool[Tensor, "batch pos"]]:
    """Norm outliers at the sites of each dictionary, and of those that write each site."""
    at = {s: is_outlier_in_prompt(values[s], mask) for s in {*suite.reads, *suite.writes}}
    found = {
        name: _any(at[s] for s in {*suite.reads_of(name), *suite.writes_of(name)}) for name in suite
    }
    of_sites = {str(s): _any(found[name] for name in suite.writing(s)) for s in suite.writes}
    return found | of_sites


def _any(masks: Iterable[Tensor]) -> Tensor:
    first, *others = masks
    for other in others:
        first = first | other
    return first


def mean_over(
    model: TransformerBridge,
    suite: Suite,
    batch: Batch,
    *,
    by_position: bool,
    batch_size: int,
) -> Means:
    """Mean features and errors over the prompts of `batch`, padding left out."""
    device, parts = device_of(model), torch.arange(len(batch)).split(batch_size)
    pieces = (batch.rows(rows).to(device) for rows in parts)
    runs = ((part, record(model, suite, part)) for part in pieces)
    return mean_of(suite, runs, by_position=by_position, dtype=our_precision(model))


def mean_of(
    suite: Suite,
    runs: Iterable[tuple[Batch, Recorded]],
    *,
    by_position: bool,
    dtype: torch.dtype,
) -> Means:
    """Mean features and errors over runs of prompts, padding left out."""
    sums = {name: FeatureSums() for name in suite}
    counts: dict[str, Tensor] = {}
    errors: dict[Site, Tensor] = {}
    for batch, run in runs:
        mask = batch.mask
        columns = torch.arange(mask.shape[1], device=mask.device)
        position = (columns if by_position else columns * 0).expand_as(mask)
        kinds = {k: torch.stack([mask & ~o, mask & o]) for k, o in run.outlier.items()}
        for name in suite:
            f = run.features[name]
            # Outliers stand behind all positions of the others.
            at = position + run.outlier[name] * (mask.shape[1] if by_position else 1)
            sums[name].add(f, at, (f.value != 0) & mask.unsqueeze(-1))
        for key, tokens in kinds.items():
            found = tokens.double().sum(1)
            _add(counts, key, found if by_position else found.sum(-1, keepdim=True))
        for site in suite.writes:
            error = run.error(suite, site).double()
            over = "kind batch pos, batch pos d -> kind pos d"
            total = einsum(kinds[str(site)].double(), error, over)
            _add(errors, site, total if by_position else total.sum(1, keepdim=True))
    return _means(sums, errors, counts, dtype)


def _add(totals: dict[Any, Tensor], key: Any, found: Tensor) -> None:
    totals[key] = totals[key] + found if key in totals else found


def _means(
    sums: Mapping[str, FeatureSums],
    errors: Mapping[Site, Float[Tensor, "kind pos d_model"]],
    counts: Mapping[str, Float[Tensor, "kind pos"]],
    dtype: torch.dtype,
) -> Means:
    """Of each position the mean of its plain tokens; of its outliers, where it has no others."""
    plain = {key: count[0] > 0 for key, count in counts.items()}
    # Columns of padding alone have no mean, and nothing reads what is put there: zero.
    of_which = {k: torch.where(plain[k], *n).clamp_min(1) for k, n in counts.items()}
    f = {}
    for name, total in sums.items():
        both = total.mean(counts[name].flatten(), dtype)
        places = torch.arange(len(plain[name]), device=plain[name].device)
        f[name] = both[places + ~plain[name] * len(places)]
    error = {}
    for site, total in errors.items():
        key = str(site)
        chosen = torch.where(plain[key].unsqueeze(-1), total[0], total[1])
        error[site] = (chosen / of_which[key].unsqueeze(-1)).to(dtype)
    return Means(f, error, {key: ~value for key, value in plain.items()})


def batch_state(
    suite: Suite,
    rows: Int[Tensor, " batch"],
    clean: Batch,
    run: Recorded,
    patched: Recorded | None,
    reference: Reference,
    means: Means | None,
) -> BatchState:
    """Where the nodes of prompts that were `run` stand, and where they are moved to.

    Raises `ValueError` when they are to be moved to a patch that they do not have.
    """
    check_patch(reference, patched)
    moves = {key: _moves(run, key, clean.mask, reference, means) for key in run.outlier}
    patch = patched if reference == "patch" else None
    features = {
        name: FeatureState(
            run.features[name],
            _feature_reference(dictionary, patch, means, name),
            moves[name],
            _slope(dictionary, run, patch, name),
        )
        for name, dictionary in suite.items()
    }
    errors = {}
    for site in suite.writes:
        error = run.error(suite, site)
        moved = torch.zeros_like(error)
        if patch is not None:
            moved = patch.error(suite, site)
        elif means is not None:
            moved = means.error[site].expand_as(error)
        errors[site] = ErrorState(error, torch.where(moves[str(site)].unsqueeze(-1), moved, error))
    embed_change = torch.zeros_like(run.values[EMBED])
    if patch is not None:
        embed_change = patch.values[EMBED] - run.values[EMBED]
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


def _moves(
    run: Recorded,
    key: str,
    mask: Bool[Tensor, "batch pos"],
    reference: Reference,
    means: Means | None,
) -> Bool[Tensor, "batch pos"]:
    """The tokens at which nodes move: not padding, nor norm outliers that stay as they are."""
    if reference == "patch":
        return mask
    stays = run.outlier[key]
    return mask & ~(stays if means is None else stays & ~means.of_outliers[key])


def _feature_reference(
    dictionary: SparseDictionary, patch: Recorded | None, means: Means | None, name: str
) -> Features:
    if patch is not None:
        return patch.features[name]
    return dictionary.nothing((1, 1)) if means is None else means.f[name][None]


def _slope(
    dictionary: SparseDictionary, run: Recorded, patch: Recorded | None, name: str
) -> Features:
    if patch is None:
        return run.features[name].on()
    moved = patch.read[name] - run.read[name]
    return slopes(dictionary, run.encoded[name], patch.encoded[name], moved)


def norm_limits(
    model: TransformerBridge, suite: Suite, batch: Batch, *, batch_size: int
) -> dict[Site, float]:
    """Ten times the median norm of all tokens of `batch`, at every site read or written.

    It tells norm outliers where prompts are not known one by one, padding among them.
    """
    norms: dict[Site, list[Tensor]] = {site: [] for site in {*suite.reads, *suite.writes}}
    for rows in torch.arange(len(batch)).split(batch_size):
        part = batch.rows(rows).to(device_of(model))
        values, _, _ = site_values(model, suite, part)
        for site, found in norms.items():
            found.append(values[site].float().norm(dim=-1)[part.mask])
    return {
        site: OUTLIER_FACTOR * float(torch.cat(found).median()) for site, found in norms.items()
    }
