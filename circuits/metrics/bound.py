"""Metrics of a site (`circuits.metrics.readout`) on a prompt set: where they read, their values."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot
from transformer_lens.model_bridge import TransformerBridge

from circuits.metrics.metric import SiteMetric, reaching
from circuits.metrics.readout import MEAN, Readout, feature_of
from circuits.prompts import EncodedPrompts, Positions
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import Batch
from saes.suite import Suite

BATCH = 32
ReadoutValue = Callable[[Float[Tensor, "batch d_site"]], Float[Tensor, " batch"]]


def bind_feature(
    text: str,
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    positions: Positions,
) -> SiteMetric:
    """The activation of the feature that `text` names, on these prompts."""
    node = feature_of(text)
    if node.site not in suite:
        raise ValueError(
            f"the metric {text!r} is at no dictionary's site: the sites are "
            f"{', '.join(map(str, suite))}"
        )
    dictionary, index = suite[node.site], int(node.feature)
    if len(dictionary.reads) > 1:
        raise ValueError(
            f"{node.site} reads {', '.join(map(str, dictionary.reads))}: the activation of a "
            "feature is a metric where its dictionary reads one site"
        )
    if not 0 <= index < dictionary.n_features:
        raise ValueError(
            f"{node.site} has features 0 to {dictionary.n_features - 1}, so there is no {text!r}"
        )

    def value(x: Float[Tensor, "batch d_site"]) -> Float[Tensor, " batch"]:
        chosen = torch.tensor([index], device=x.device)
        on = dictionary.encode(x.detach()).of(chosen)[..., 0] != 0
        return (x @ dictionary.W_enc[index] + dictionary.b_enc[index]) * on

    at = _one_column(prompts, node.position, positions)
    return _bound(model, suite, prompts, dictionary.source, "arriving", at, value)


def bind_readout(
    readout: Readout,
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    positions: Positions,
) -> SiteMetric:
    """The readout on these prompts."""

    def value(x: Float[Tensor, "batch d_site"]) -> Float[Tensor, " batch"]:
        if x.shape[-1] != len(readout.direction):
            raise ValueError(
                f"the direction has {len(readout.direction)} numbers, but {readout.site} has "
                f"width {x.shape[-1]}"
            )
        return x @ readout.direction.to(x) + readout.bias

    if readout.position == MEAN:
        mask = prompts.clean.mask
        at = _of_each(
            model,
            readout.site,
            prompts.clean,
            lambda x, rows: _wide(mean_weights(x, mask[rows, -x.shape[1] :].to(x.device)), mask),
        )
    else:
        at = _one_column(prompts, readout.position, positions)
    return _bound(model, suite, prompts, readout.site, "leaving", at, value)


def _one_column(
    prompts: EncodedPrompts, position: int | None, positions: Positions
) -> Float[Tensor, "prompts pos"]:
    """One at the column that is read, for each prompt."""
    mask = prompts.clean.mask
    width, padding = mask.shape[1], (~mask).sum(-1)
    if position is None:
        return one_hot(torch.full_like(padding, width - 1), width).float()
    column = torch.full_like(padding, position)
    if positions != "end":
        column = column + padding
    outside = (column < padding) | (column >= width)
    if outside.any():
        short = int(outside.int().argmax())
        raise ValueError(
            f"the metric reads position {position}, which prompt {short + 1} does not have: it "
            f"has positions {int(padding[short]) if positions == 'end' else 0} to "
            f"{width - 1 if positions == 'end' else int(mask[short].sum()) - 1}"
        )
    return one_hot(column, width).float()


def _bound(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    site: Site,
    when: Literal["arriving", "leaving"],
    weights: Float[Tensor, "prompts pos"],
    value: ReadoutValue,
) -> SiteMetric:
    """The metric with its values on both halves of the prompt set."""
    nothing = torch.zeros(len(weights))
    bare = SiteMetric(site=site, when=when, weights=weights, value=value, clean=nothing, patch=None)
    return with_values(bare, model, suite, prompts)


def with_values(
    bare: SiteMetric, model: TransformerBridge, suite: Suite, prompts: EncodedPrompts
) -> SiteMetric:
    """A metric with its values on both halves of a prompt set.

    Raises `ValueError` where no dictionary comes before it.
    """
    site = bare.site
    if not reaching(bare, suite.writes):
        raise ValueError(
            f"the metric reads {site}, and no dictionary lies before it: there is no circuit of it"
        )
    clean = _of_each(model, site, prompts.clean, bare.read)
    patch = None
    if prompts.patch is not None:
        patch = _of_each(model, site, prompts.patch, bare.read)
    return replace(bare, clean=clean, patch=patch)


@torch.no_grad()
def _of_each(
    model: TransformerBridge,
    site: Site,
    batch: Batch,
    of: Callable[[Tensor, Int[Tensor, " rows"]], Tensor],
) -> Float[Tensor, "prompts *any"]:
    """What `of` gives for the tensor at a site and the numbers of its rows, for every row.

    Rows of like length run together, without the columns that are padding of all of them.
    """
    order = batch.mask.sum(1).argsort(stable=True)
    parts = []
    for rows in order.split(BATCH):
        with capture(model, {site}) as seen:
            run_through(model, batch.rows(rows).trimmed(), max(0, site.layer))
        parts.append(of(seen[site], rows))
    found = torch.cat(parts)
    return found[order.argsort().to(found.device)]


def _wide(
    weights: Float[Tensor, "batch some"], mask: Bool[Tensor, "prompts pos"]
) -> Float[Tensor, "batch pos"]:
    """As many columns as all prompts have, nothing in those on the left."""
    return torch.nn.functional.pad(weights, (mask.shape[1] - weights.shape[1], 0))
