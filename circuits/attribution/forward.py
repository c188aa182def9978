"""The metric after the tensor at some site has been replaced: the runs of patching and ablation.

Nothing before that site is run again, nor positions before the first that differs.
"""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.attribution.state import BatchState
from circuits.metrics.metric import SiteMetric, metric_at, reaches, reading
from hooked_qwen.forward import BlockArguments, finish, has_hooks, mlp_half, resume
from hooked_qwen.hooks import HookFunction, intervene
from hooked_qwen.sites import Site


def metric_with_deltas(
    analysis: Analysis,
    state: BatchState,
    deltas: Mapping[Site, Float[Tensor, "rows pos d_site"]],
    index: Int[Tensor, " rows"],
    *,
    start: int | None = None,
) -> Float[Tensor, " rows"]:
    """The metric with `deltas` added to some sites' tensors; the rest as in `run_from`."""
    if len(deltas) == 1:
        ((site, delta),) = deltas.items()
        value = state.values[site][index] + delta
        return metric_from(analysis, state, site, value, index, start=start)
    model, metric = analysis.model, analysis.metric
    first, rows = min(deltas).layer, state.rows[index]
    edits = {site: _added(delta) for site, delta in deltas.items()}
    with state.under(index), reading(model, metric, intervene(model, edits)) as read:
        entering = state.values[Site("resid_pre", first)][index]
        final = resume(model, entering, first, state.arguments.rows(index))
    return read(final[:, -1:], rows)


def _added(delta: Tensor) -> HookFunction:
    return lambda value: value + delta


def metric_from(
    analysis: Analysis,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
    *,
    start: int | None = None,
) -> Float[Tensor, " rows"]:
    """The metric with the tensor at `site` set to `value`; `index` and `start` as in `run_from`."""
    model, metric, rows = analysis.model, analysis.metric, state.rows[index]
    if not isinstance(metric, SiteMetric):
        last = run_from(model, state, site, value, index, start=start)
        return metric_at(model, last, metric, rows)
    if not reaches(metric, site):  # it reads a tensor that this site comes after
        return metric.clean[rows].to(value)
    if site == metric.site:
        return metric.read(value, rows)
    whole = site.kind in ("embed", "resid_post")
    first = site.layer + 1 if whole else site.layer
    resid = value if whole else state.values[Site("resid_pre", first)][index]
    replace: HookFunction = lambda _: value  # noqa: E731
    edits = None if whole else intervene(model, {site: replace})
    with state.under(index), reading(model, metric, edits) as read:
        arguments = state.arguments.rows(index)
        resume(model, resid, first, arguments, stop=metric.site.layer + 1)
    return read(None, rows)


def run_from(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
    *,
    start: int | None = None,
) -> Float[Tensor, "rows 1 d_model"]:
    """The last token's stream after all blocks with the tensor at `site` set to `value`.

    Nothing before it is run again.

    `index` says which prompt of the batch each row is. Positions before the first at which
    `value` differs from the clean run, `start` where that is known, stay as they are and are not
    run either: no gradient reaches them. Where the model has hooks, they see the site's
    whole block, and all of its positions.
    """
    with state.under(index):
        return _run_from(model, state, site, value, index, start)


def _run_from(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
    start: int | None,
) -> Float[Tensor, "rows 1 d_model"]:
    # Attention is causal, so positions before the first change keep the keys and values of the
    # clean run's KV cache. Hooks expect whole sequences: where there are some, all positions run.
    first, hooked = 0, has_hooks(model)
    if state.arguments.cache is not None and not hooked:
        first = _first_that_differs(state, site, value, index) if start is None else start
    arguments = state.arguments.rows(index, first=first)
    value = value[:, first:]
    if hooked or site.kind not in ("mlp_out", "attn_out"):
        resid, layer = _through_block(model, state, site, value, index, first, arguments)
    else:
        resid, layer = _stream_after(model, state, site, value, index, first)
    return finish(model, resid, layer, arguments, hooked=hooked)


def _first_that_differs(state: BatchState, site: Site, value: Tensor, index: Tensor) -> int:
    # Waits for the device; who knows the position gives `start`. Where nothing differs, the last
    # position is run, as a run needs one.
    differs = (value != state.values[site][index]).any(-1).any(0).tolist()
    return differs.index(True) if True in differs else len(differs) - 1


def _through_block(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows later d_site"],
    index: Tensor,
    first: int,
    arguments: BlockArguments,
) -> tuple[Float[Tensor, "rows later d_model"], int]:
    """The stream after the site's block, and the layer that it enters."""
    after = site.layer + 1
    if site.kind in ("embed", "resid_post"):
        return value, after
    start = state.values[Site("resid_pre", site.layer)][index, first:]
    replace: HookFunction = lambda _: value  # noqa: E731
    with intervene(model, {site: replace}):
        return resume(model, start, site.layer, arguments, stop=after), after


def _stream_after(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows later d_model"],
    index: Tensor,
    first: int,
) -> tuple[Float[Tensor, "rows later d_model"], int]:
    """As `_through_block`, without what comes before the site in its block."""

    def clean(kind: str) -> Tensor:
        return state.values[Site(kind, site.layer)][index, first:]

    if site.kind == "mlp_out":
        # resid_post = resid_mid + mlp_out: the MLP's output is exchanged in the sum, none is run.
        return clean("resid_post") + (value - clean("mlp_out")), site.layer + 1
    # resid_mid = resid_pre + attn_out: the MLP of the same block still has to read it.
    return mlp_half(model, clean("resid_pre") + value, site.layer), site.layer + 1
