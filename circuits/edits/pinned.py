"""One prompt under an ablation, as a replacement model takes it: which nodes are pinned, and where.

What leaves the MLPs is that of the model under the ablation, run once as `result.json` runs it.
Ablated features write what they are set to, whatever the prompt does; ablated errors likewise.

Axes: `pos` tokens of the prompt, without padding; `columns` of its batch.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import decompose, run_plain
from circuits.edits.ablated_run import at_baseline, baseline_for, run_ablated
from circuits.edits.ablation import Ablation
from circuits.edits.edited_run import columns_of
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features
from saes.intervention import Baseline, touched
from saes.nodes import NodeSet
from transcoders.sources import Pinned


@torch.no_grad()
def pinned_by(analysis: Analysis, edit: Ablation, batch: Batch, number: int) -> Pinned:
    """What an ablation pins in one row of `batch`, of the analysis' clean or patch prompts.

    Raises `ValueError` where nodes go to a patch that is not there.
    """
    model, suite, device = analysis.model, analysis.suite, device_of(analysis.model)
    row = torch.tensor([number])
    prompt, patch = batch.rows(row).to(device), analysis.prompts.patch
    plain = run_plain(model, suite, prompt)
    to = None if patch is None else run_plain(model, suite, patch.rows(row).to(device))
    ablated = edit.kept_set().complement().to(device)
    base = baseline_for(analysis, edit, plain, to)
    run = run_ablated(analysis, prompt, ablated, base, plain)
    stands, mask = decompose(suite, run).clean.features, prompt.mask[0]
    written: dict[Site, Tensor] = {}
    for name, f in stands.items():
        pinned = f.times(at_baseline(ablated, base, name, f))
        for site, y in suite[name].by_site(suite[name].write(pinned)).items():
            written[site] = written.get(site, 0.0) + y[0, mask]

    def features(name: str, f: Features) -> Bool[Tensor, "pos slots"]:
        return at_baseline(ablated, base, name, _in_columns(f, mask))[0, mask]

    return Pinned(
        mlp_out={site: run.values[site][0, mask] for site in touched(suite, ablated)},
        written=written,
        features=features,
        errors={site: _errors(ablated, base, site, run.values[site])[mask] for site in written},
    )


def _errors(ablated: NodeSet, base: Baseline, site: Site, x: Tensor) -> Bool[Tensor, " columns"]:
    """Where the error of a site is at its baseline: not on norm outliers that stay."""
    held, spared = ablated.error(site, columns_of(x)), base.spared.get(str(site))
    return (held if spared is None else held & ~spared.tokens({}, None))[0]


def _in_columns(f: Features, mask: Bool[Tensor, " columns"]) -> Features:
    """Features of a prompt's tokens at their columns of a batch of one."""

    def spread(x: Tensor) -> Tensor:
        found = x.new_zeros(1, len(mask), x.shape[-1])
        found[0, mask] = x
        return found

    return Features(spread(f.index), spread(f.value), f.width, f.whole)
