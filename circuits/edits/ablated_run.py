"""Prompts under an ablation: named nodes at what they are set to, norm outliers as they are."""

from dataclasses import replace
from functools import partial

from jaxtyping import Bool, Int
from torch import Tensor

from circuits.ablation.faithfulness import fixed_baseline
from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import RecordedRun, decompose, run_plain, site_values
from circuits.attribution.state import check_patch
from circuits.edits.ablation import Ablation
from circuits.edits.edited_run import EditedRun, columns_of, read_elsewhere
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features
from saes.intervention import Baseline, reads_first, setting, touched
from saes.nodes import NodeSet


def ablated_run(analysis: Analysis, edit: Ablation, rows: Int[Tensor, " batch"]) -> EditedRun:
    """Some of the prompts under an ablation; to `patch`, each has its own patch's values."""
    model, suite, prompts = analysis.model, analysis.suite, analysis.prompts
    device = device_of(model)
    ablated = edit.kept_set().complement().to(device)
    clean = prompts.clean.rows(rows).to(device)
    patch = None if prompts.patch is None else prompts.patch.rows(rows).to(device)
    plain = run_plain(model, suite, clean)
    plain_patch = None if patch is None else run_plain(model, suite, patch)
    base = baseline_for(analysis, edit, plain, plain_patch)
    run = run_ablated(analysis, clean, ablated, base, plain)
    patched = None
    if patch is not None and plain_patch is not None:
        own = {k: replace(s, known=plain_patch.outlier[k]) for k, s in base.spared.items()}
        patched = run_ablated(analysis, patch, ablated, replace(base, spared=own), plain_patch)
    early, values = run.known, run.arriving

    def under(index: Int[Tensor, " rows"]):
        return setting(
            model,
            suite,
            [ablated],
            base.rows(index),
            plain={name: f[index] for name, f in early.items()},
            known={site: x[index] for site, x in values.items()},
            must_run=False,
        )

    def held_errors(site: Site) -> Bool[Tensor, "batch pos"]:
        held = ablated.error(site, columns_of(run.values[site]))
        spared = base.spared.get(str(site))
        return held if spared is None else held & ~spared.tokens({}, None)

    return EditedRun(
        batch=clean,
        nodes=decompose(suite, run, patched, reference=analysis.config.reference),
        held=partial(at_baseline, ablated, base),
        held_errors=held_errors,
        under=under,
    )


def baseline_for(
    analysis: Analysis, edit: Ablation, plain: RecordedRun, patch: RecordedRun | None
) -> Baseline:
    """What ablated nodes are set to, of the sites where there are any.

    Only to go to a patch asks what the plain nodes are.
    """
    analysis = analysis.at(touched(analysis.suite, edit.kept_set().complement()))
    suite, device = analysis.suite, device_of(analysis.model)
    if edit.to != "patch":
        means = analysis.means if edit.to == "mean" else None
        return fixed_baseline(suite, edit.to, means, device=device, outlier=plain.outlier)
    check_patch("patch", patch)
    assert patch is not None
    found = decompose(suite, patch).clean
    return Baseline(found.features, found.errors, {})


def run_ablated(
    analysis: Analysis, batch: Batch, ablated: NodeSet, base: Baseline, plain: RecordedRun
) -> RecordedRun:
    """A run under the ablation; what counts as a norm outlier is as in the `plain` run."""
    model, suite = analysis.model, analysis.suite
    early = {n: suite[n].encode(plain.read[n]) for n in suite if not reads_first(suite, n)}
    with (
        setting(model, suite, [ablated], base, plain=early),
        capture_arriving(model, touched(suite, ablated)) as arriving,
    ):
        values, logits, arguments = site_values(model, suite, batch)
    arriving = values | arriving

    def standing(name: str, f: Features) -> Features:
        stays = f.times(~at_baseline(ablated, base, name, f))
        return stays.plus(_set_to(ablated, base, name, f))

    return RecordedRun(
        values,
        {name: suite.read(name, arriving) for name in suite},
        plain.outlier,
        logits,
        arguments,
        early,
        standing,
        {site: arriving[site] for site in read_elsewhere(suite)},
    )


def _set_to(ablated: NodeSet, base: Baseline, name: str, f: Features) -> Features:
    """The ablated features of a dictionary at what they are set to.

    A table of means knows every feature that is on in any prompt: the others of it are left out
    before there is a row for each prompt.
    """
    to = base.features.get(name)
    if to is None:
        return Features.none(f.value.shape[:-1], f.width, f.value)
    to = to.expand(len(to.value), f.value.shape[1])
    to = to.only(ablated.feature(name, to.index, to.columns())).expand(*f.value.shape[:-1])
    return to.times(at_baseline(ablated, base, name, to))


def at_baseline(
    ablated: NodeSet, base: Baseline, name: str, f: Features
) -> Bool[Tensor, "batch pos slots"]:
    """Which features are at their baseline: not those on norm outliers that stay."""
    found = ablated.feature(name, f.index, f.columns())
    spared = base.spared.get(name)
    return found if spared is None else found & ~spared.tokens({}, None).unsqueeze(-1)
