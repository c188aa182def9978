"""The exact oracle: what ablating nodes does to the metric, by running the model.

Single nodes are measured on the clean run, each on its own: the node moves from its clean to its
reference value, everything downstream reacts. Sets of nodes are ablated together, at every site,
on whatever arrives there under the ablation.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.edges import node_change
from circuits.attribution.effects import metric_from
from circuits.attribution.state import EMBED, BatchState
from circuits.graph import Node
from circuits.metrics.metric import Metric, counts, on_clean
from hooked_qwen.hooks import Activation, Edit, capture, intervene
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.suite import Suite

ROWS_AT_ONCE = 256
TOKENS_AT_ONCE = 4096


@torch.no_grad()
def exact_effects(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    nodes: Sequence[Node],
    *,
    report: Callable[[int], None] | None = None,
) -> Float[Tensor, "nodes batch"]:
    """m(run with the node at its reference) - m(clean), for each node and each prompt.

    Pairs in which the node does not move are zero without a run. The forward pass starts at the
    node's layer: nothing earlier can change. `report` is called with the runs done since.
    """
    clean = on_clean(metric, state.logits, state.rows)
    effects = torch.zeros(len(nodes), len(state.rows), dtype=torch.float64)
    by_site: dict[Site, list[int]] = {}
    for i, node in enumerate(nodes):
        by_site.setdefault(Site.parse(node.site), []).append(i)
    for site, members in by_site.items():
        for some in _pieces(members, state):
            changes = torch.stack(
                [_at_position(node_change(suite, state, site, nodes[i]), nodes[i]) for i in some]
            )
            moved = counts(metric, site, changes, state.rows)
            which, prompt = moved.nonzero(as_tuple=True)
            for start in range(0, len(which), _rows(state)):
                pick = slice(start, start + _rows(state))
                row, index = which[pick], prompt[pick]
                value = state.values[site][index] + changes[row, index]
                gap = metric_from(model, state, site, value, index, metric) - clean[index]
                effects[torch.tensor(some)[row], index] = gap.double()
            if report is not None:
                report(len(some))
    return effects


def _rows(state: BatchState) -> int:
    return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // state.clean.tokens.shape[1]))


def _pieces(members: list[int], state: BatchState) -> list[list[int]]:
    """Nodes whose changes are held in memory at once."""
    size = max(1, 4 * _rows(state) // len(state.rows))
    return [members[i : i + size] for i in range(0, len(members), size)]


def _at_position(change: Activation, node: Node) -> Activation:
    if node.position is None:
        return change
    only = torch.zeros_like(change)
    only[:, node.position] = change[:, node.position]
    return only


Entry = Int[Tensor, "batch pos"]
"For each token of a pass, which entry of a table of positions it goes by."


@dataclass(frozen=True)
class SiteMask:
    """Which nodes of a site stay as they are; `pos` has length 1 when positions are summed."""

    feature: Bool[Tensor, "*rows pos features"]
    error: Bool[Tensor, "*rows pos"]

    @property
    def keeps_all(self) -> bool:
        return bool(self.feature.all() and self.error.all())

    def at(self, entry: Entry) -> "SiteMask":
        """The mask of each token, where `entry` says which of `pos` it goes by."""
        return SiteMask(self.feature[entry], self.error[entry])


Masks = dict[Site, SiteMask]
"One mask a site; with an axis `rows` in front where each row of a batch has its own."


@dataclass(frozen=True)
class Baseline:
    """What ablated nodes are set to at one site; axes of length 1 are broadcast."""

    f: Float[Tensor, "batch pos features"]
    error: Float[Tensor, "batch pos d_model"]
    stays: Bool[Tensor, "*batch pos"] | None = None
    "positions at which norm outliers are left as they arrive (see `circuits.attribution.state`)"
    outlier: Bool[Tensor, "prompts tokens"] | None = None
    "which they are, where the prompts are known"
    limits: tuple[float, float] | None = None
    "else the norms at source and target above which a token is one"

    def rows(self, index: Int[Tensor, " rows"]) -> "Baseline":
        """The baseline of each prompt in `index`, repeats allowed."""
        f, error = (x if len(x) == 1 else x[index] for x in (self.f, self.error))
        outlier = None if self.outlier is None else self.outlier[index]
        return Baseline(f, error, self.stays, outlier, self.limits)

    def at(self, entry: Entry) -> "Baseline":
        """The baseline of each token, where `entry` says which of `pos` it goes by."""
        f, error = (x if x.shape[1] == 1 else x[0][entry] for x in (self.f, self.error))
        stays = self.stays
        if stays is not None and len(stays) > 1:
            stays = stays[entry]
        return Baseline(f, error, stays, self.outlier, self.limits)

    def spared(self, source: Activation, target: Activation) -> Bool[Tensor, "batch pos 1"] | None:
        """Tokens that are not ablated, of those that arrive at the dictionary's two sites."""
        if self.stays is None or not self.stays.any():
            return None
        if (found := self.outlier) is None:
            assert self.limits is not None, "outliers are known, or told by limits"
            read, written = (x.float().norm(dim=-1) for x in (source, target))
            found = (read > self.limits[0]) | (written > self.limits[1])
        return (found & self.stays).unsqueeze(-1)


def no_nodes(suite: Suite, n_positions: int) -> Masks:
    """Masks that keep nothing."""
    return {
        site: SiteMask(
            torch.zeros(n_positions, dictionary.n_features, dtype=torch.bool),
            torch.zeros(n_positions, dtype=torch.bool),
        )
        for site, dictionary in suite.items()
    }


def masks_of(suite: Suite, nodes: Sequence[Node], n_positions: int) -> Masks:
    """Masks that keep `nodes`, at every position where one names none.

    Token and logit nodes are always kept and not listed.
    """
    masks = no_nodes(suite, n_positions)
    for node in nodes:
        if node.kind in ("token", "logit"):
            continue
        mask = masks[Site.parse(node.site)]
        at = slice(None) if node.position is None else node.position
        if node.feature == "error":
            mask.error[at] = True
        else:
            mask.feature[at, int(node.feature)] = True
    return masks


def complement(masks: Masks) -> Masks:
    """Masks that keep what `masks` ablate."""
    return {site: SiteMask(~mask.feature, ~mask.error) for site, mask in masks.items()}


def stacked(circuits: Sequence[Masks], repeats: int) -> Masks:
    """Masks of several circuits, each for `repeats` rows of a batch, one circuit after another."""
    return {
        site: SiteMask(
            *(
                torch.stack([getattr(masks[site], part) for masks in circuits]).repeat_interleave(
                    repeats, 0
                )
                for part in ("feature", "error")
            )
        )
        for site in circuits[0]
    }


@contextmanager
def only(
    model: TransformerBridge,
    suite: Suite,
    masks: Masks,
    baselines: Mapping[Site, Baseline],
    *,
    entry: Callable[[], Entry] | None = None,
    must_run: bool = True,
) -> Generator[None, None, None]:
    """Ablate, inside the block, every node outside `masks` to its baseline.

    Positions of masks and baselines are the columns of the pass; with `entry`, called in every
    pass, they are a table of which it says what each token goes by.

    Each site is decomposed as it arrives under the ablations upstream: kept features follow
    their inputs. Sites where everything is kept are not touched. Padding is ablated like the
    rest: no real token reads it. `must_run` is as that of `hooked_qwen.hooks.intervene`.
    """
    cut = {site: mask for site, mask in masks.items() if not mask.keeps_all}
    sources = {suite[site].source for site in cut} - set(cut)
    with ExitStack() as stack:
        seen = stack.enter_context(capture(model, sources, must_run=must_run)) if sources else {}
        edits = {
            site: _ablation(suite[site], mask, baselines[site], seen, entry)
            for site, mask in cut.items()
        }
        stack.enter_context(intervene(model, edits, must_run=must_run))
        yield


def _ablation(
    dictionary: SparseDictionary,
    mask: SiteMask,
    baseline: Baseline,
    seen: Mapping[Site, Activation],
    entry: Callable[[], Entry] | None,
) -> Edit:
    """The site is x = decode(f) + error: where the error is kept, only features are moved."""

    def edit(value: Activation) -> Activation:
        keep, to = (mask, baseline) if entry is None else (mask.at(entry()), baseline.at(entry()))
        keep_error = keep.error.unsqueeze(-1)
        source = seen.get(dictionary.source, value)
        f = dictionary.encode(source)
        after = torch.where(keep.feature, f, to.f)
        found = torch.where(keep_error, value, dictionary.b_dec + to.error)
        found = found + dictionary.write(after - keep_error * f)
        spared = to.spared(source, value)
        return found if spared is None else torch.where(spared, value, found)

    return edit


def all_nodes(suite: Suite, state: BatchState, *, positions: str) -> list[Node]:
    """Every node that moves on some prompt of the batch, in the order of the forward pass."""
    nodes: list[Node] = []
    for site, nodes_here in state.sites.items():
        feature = (nodes_here.f_change != 0).any(0)
        error = nodes_here.error_change.any(-1).any(0)
        if positions == "sum":
            feature, error = feature.any(0, keepdim=True), error.any(0, keepdim=True)
        at = [None] if positions == "sum" else list(range(len(error)))
        nodes += [Node(str(site), i, at[p]) for p, i in feature.nonzero().tolist()]
        nodes += [Node(str(site), "error", at[p]) for p in error.nonzero().flatten().tolist()]
    return nodes


def token_nodes(state: BatchState, *, positions: str) -> list[Node]:
    """The embeddings that move: where clean and patch prompts differ."""
    moved = state.embed_change.any(-1).any(0)
    if positions == "sum":
        return [Node(str(EMBED), "token")] if moved.any() else []
    return [Node(str(EMBED), "token", p) for p in moved.nonzero().flatten().tolist()]
