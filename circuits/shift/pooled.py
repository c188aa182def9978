"""Texts as one vector each: the mean of a site's tensor, or of features, over a text's tokens.

Norm outliers (mostly the first token) do not count: with hundreds of times the usual norm they
would be all of the mean. Which tokens count is known from the plain model, also under an edit.

Axes: `texts` texts, `pos` columns, padded on the left.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.prompts import EncodedPrompts, Prompt, encode_prompts
from circuits.shift.labelled import LabelledText
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.placement import device_of
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from saes.suite import Suite

TEXTS_PER_PASS = 32


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Labelled texts in tokens."""

    prompts: EncodedPrompts
    label: Bool[Tensor, " texts"]
    "of class 1"
    spurious: Bool[Tensor, " texts"]
    "of spurious class 1"

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, chosen: Int[Tensor, " some"]) -> "EncodedTexts":
        """Some of the texts."""
        prompts = self.prompts
        some = EncodedPrompts(
            tuple(prompts.prompts[i] for i in chosen.tolist()),
            prompts.clean.rows(chosen),
            None,
            ((),) * len(chosen),
            ((),) * len(chosen),
            None,
            begins_with=prompts.begins_with,
        )
        return EncodedTexts(some, self.label[chosen], self.spurious[chosen])


def encoded(model: TransformerBridge, texts: Sequence[LabelledText]) -> EncodedTexts:
    """The texts in the model's tokens, a BOS before each where the tokenizer puts one."""
    prompts = [
        Prompt(clean=t.text, patch=None, answer=(), wrong=(), where=f"text {i}")
        for i, t in enumerate(texts, 1)
    ]
    return EncodedTexts(
        encode_prompts(prompts, model.tokenizer, positions="sum"),
        torch.tensor([t.label == 1 for t in texts]),
        torch.tensor([t.spurious == 1 for t in texts]),
    )


@dataclass(frozen=True, eq=False)
class Pooled:
    """Each text's mean tensor at some sites."""

    means: dict[Site, Float[Tensor, "texts d_site"]]
    "in float64"
    counted: dict[Site, Float[Tensor, "texts pos"]]
    "what each token counts for in its text's mean"


@torch.no_grad()
def pooled(
    model: TransformerBridge,
    texts: EncodedTexts,
    sites: Iterable[Site],
    *,
    edit: AbstractContextManager[Any] | None = None,
    counted: Mapping[Site, Float[Tensor, "texts pos"]] | None = None,
) -> Pooled:
    """Each text's mean tensor at each of `sites`, with `edit` in force.

    `counted` is that of the plain run, which an edited one needs.
    """
    sites = list(sites)
    means: dict[Site, list[Tensor]] = {site: [] for site in sites}
    shares: dict[Site, list[Tensor]] = {site: [] for site in sites}
    last = max(site.layer for site in sites)
    with edit or nullcontext():
        for rows in torch.arange(len(texts)).split(TEXTS_PER_PASS):
            batch = texts.prompts.clean.rows(rows).to(device_of(model))
            with capture(model, set(sites)) as seen:
                run_through(model, batch, max(0, last))
            for site in sites:
                x = widened(seen[site])
                if counted is None:
                    share = mean_weights(x, batch.mask)
                else:
                    share = counted[site][rows].to(x.device)
                shares[site].append(share.cpu())
                mean = einsum(share.to(x), x, "text pos, text pos d -> text d")
                # On the CPU first: not every device has float64.
                means[site].append(mean.cpu().double())
    return Pooled(
        {site: torch.cat(parts) for site, parts in means.items()},
        {site: torch.cat(parts) for site, parts in shares.items()},
    )


@torch.no_grad()
def pooled_features(
    model: TransformerBridge, suite: Suite, texts: EncodedTexts, nodes: Sequence[Node]
) -> Float[Tensor, "texts nodes"]:
    """Each text's mean activation of each of some features, in float64."""
    by_name: dict[str, list[int]] = {}
    for at, node in enumerate(nodes):
        by_name.setdefault(node.site, []).append(at)
    read = {site for name in by_name for site in suite.reads_of(name)}
    found = torch.zeros(len(texts), len(nodes), dtype=torch.float64)
    for rows in torch.arange(len(texts)).split(TEXTS_PER_PASS):
        batch = texts.prompts.clean.rows(rows).to(device_of(model))
        with capture(model, read) as seen:
            run_through(model, batch, max(0, *(site.layer for site in read)))
        for name, at in by_name.items():
            x = suite.read(name, {s: widened(v) for s, v in seen.items()})
            shares = mean_weights(x, batch.mask)
            chosen = torch.tensor([int(nodes[i].feature) for i in at], device=x.device)
            own, place = chosen.unique(return_inverse=True)
            f = suite[name].encode(x).of(own)[..., place]
            found[rows[:, None], torch.tensor(at)] = (
                einsum(shares.to(f), f, "text pos, text pos n -> text n").cpu().double()
            )
    return found
