"""A run of some prompts, decomposed into features and errors at every site.

A run needs the model and no dictionary; `decompose` then reads each dictionary once, however many
runs it is asked of: dictionaries of a hundred thousand features are not all in memory at once.

Axes: `batch` prompts, `pos` columns, `slots` as in `saes.features`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.baseline_values import BaselineValue
from hooked_qwen.forward import BlockArguments, LastLogits, run_recording
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.stream import OUTLIER_FACTOR, is_outlier_in_prompt
from hooked_qwen.tokens import Batch
from saes.dictionary import EncodedChange, SparseDictionary
from saes.features import Features, cat
from saes.suite import Suite

EMBED = Site("embed")
SMALLEST_MOVE, LARGEST_SLOPE = 1e-3, 3.0


@dataclass(frozen=True)
class RecordedRun:
    """One run of a batch of prompts."""

    values: Mapping[Site, Float[Tensor, "batch pos d_model"]]
    read: Mapping[str, Float[Tensor, "batch pos d_source"]]
    "what each dictionary read"
    outlier: Mapping[str, Bool[Tensor, "batch pos"]]
    "by dictionary and by site written"
    logits: LastLogits
    arguments: BlockArguments
    known: Mapping[str, Features] = field(default_factory=dict)
    "features of dictionaries that are not those of what was read"
    standing: Callable[[str, Features], Features] = lambda name, encoded: encoded
    "the features that are written, given those encoded: the same unless an edit changes them"
    arriving: Mapping[Site, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)
    "under an edit, what arrives where runs that begin later do not see it, and is asked for there"


@dataclass(frozen=True)
class DecomposedRun:
    """A run decomposed: `values` are what the `features` write and the `errors`."""

    run: RecordedRun
    encoded: Mapping[str, Features]
    "the features of what was read"
    features: Mapping[str, Features]
    "those that are written"
    errors: Mapping[Site, Float[Tensor, "batch pos d_model"]]
    "what is left of each site's tensor without what its dictionaries write"


def run_plain(model: TransformerBridge, suite: Suite, batch: Batch) -> RecordedRun:
    """One run of `batch`."""
    values, logits, arguments = site_values(model, suite, batch)
    read = {name: suite.read(name, values) for name in suite}
    return RecordedRun(values, read, outliers(suite, values, batch.mask), logits, arguments)


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
        logits, arguments = run_recording(model, batch, keep_cache=True)
    return values, logits, arguments


@dataclass(frozen=True)
class CleanAndPatchRuns:
    """The nodes of the clean run, and of the patch run where there is one."""

    clean: DecomposedRun
    patch: DecomposedRun | None
    slopes: Mapping[str, Features]
    "change of each feature per change of its pre-activation, by dictionary"


@torch.no_grad()
def decompose(
    suite: Suite,
    run: RecordedRun,
    patch: RecordedRun | None = None,
    *,
    reference: BaselineValue = "zero",
) -> CleanAndPatchRuns:
    """What the nodes are in the clean `run` and the `patch` run; each dictionary is read once.

    With the patch as reference, features have the slope of `slopes`; else 1 where they are on.
    """
    runs = [run] if patch is None else [run, patch]
    encoded: list[dict[str, Features]] = [{} for _ in runs]
    standing: list[dict[str, Features]] = [{} for _ in runs]
    errors = [{site: each.values[site] for site in suite.writes} for each in runs]
    by_name: dict[str, Features] = {}
    same = _alike(runs)
    for name in suite:
        found, move = _encoded(suite, name, runs, same)
        for i, each in enumerate(runs):
            encoded[i][name] = found[i]
            standing[i][name] = each.standing(name, found[i])
            written = suite[name].by_site(suite[name].decode(standing[i][name]))
            errors[i] |= {site: errors[i][site] - y for site, y in written.items()}
        by_name[name] = standing[0][name].on()
        if move is not None and reference == "patch":
            read_change = runs[1].read[name] - run.read[name]
            by_name[name] = slopes(suite[name], move, read_change)
    clean, *others = (
        DecomposedRun(each, f, stands, left)
        for each, f, stands, left in zip(runs, encoded, standing, errors, strict=True)
    )
    return CleanAndPatchRuns(clean, others[0] if others else None, by_name)


def _encoded(
    suite: Suite, name: str, runs: Sequence[RecordedRun], same: int
) -> tuple[Sequence[Features], EncodedChange | None]:
    """A dictionary's features in each of one or two runs; of two, as a move too.

    The two read the same in the first `same` columns, which are encoded once.
    """
    known = [each.known.get(name) for each in runs]
    first, *others = (each.read[name] for each in runs)
    if not others:
        return [suite[name].encode(first) if known[0] is None else known[0]], None
    (second,) = others
    move = suite[name].encode_move(first[:, same:], second[:, same:])
    if same:
        alike = suite[name].encode(first[:, :same])
        still = torch.zeros_like(first[:, :same, 0])
        move = EncodedChange(
            cat([alike, move.before], 1),
            cat([alike, move.after], 1),
            torch.cat([still, move.largest], 1),
        )
    before, after = (
        f if k is None else k for f, k in zip((move.before, move.after), known, strict=True)
    )
    return (before, after), EncodedChange(before, after, move.largest)


def _alike(runs: Sequence[RecordedRun]) -> int:
    """How many columns two runs begin with in which all that dictionaries read is the same."""
    if len(runs) < 2:
        return 0
    first, second = (run.read for run in runs)
    differs = torch.stack([(first[n] != second[n]).any(-1).any(0) for n in first]).any(0)
    return int((differs.cumsum(0) == 0).sum())


def slopes(
    dictionary: SparseDictionary,
    move: EncodedChange,
    read_change: Float[Tensor, "batch pos d_source"],
) -> Features:
    """Change of each feature over the change of its pre-activation, from clean to reference.

        slope = (f' - f) / (p' - p)      between 0 and 3; where p hardly changes, 1 if f is on

    `read_change` is how what the dictionary reads changes. Features that are off at both have slope
    0 and are left out.

    The gradient at the clean run is 1 for a feature that is on and 0 for one that is off, whatever
    happens on the way: features that switch on or off, which are most of those that matter in a
    pair of prompts, would respond too much or not at all, and the error would take the rest.
    """
    f, reference = move.before, move.after
    change = reference.minus(f).coalesced()
    # Sorted by the same indices, so that both have a feature in the same slot.
    active = reference.times(torch.zeros_like(reference.value)).plus(f.on()).coalesced().value
    response = dictionary.responses(read_change, change.index)
    ratio = change.value / torch.where(response == 0, 1.0, response)
    small = response.abs() <= SMALLEST_MOVE * move.largest.unsqueeze(-1)
    slope = torch.where(small, active, ratio.clamp(0.0, LARGEST_SLOPE))
    return Features(change.index, slope, change.width, change.whole)


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
