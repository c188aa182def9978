"""Cut features out of the model, run the prompts again, and look at what changed.

An edit ablates some nodes and leaves the rest of each site as it is, error included; sites
downstream react. Ablated to `zero`, to their `mean` over the patch prompts (by position where
positions are kept), or to the value they have on each prompt's own `patch`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from circuits.ablation.faithfulness import fixed_baseline
from circuits.analysis import Analysis
from circuits.attribution.means import Means
from circuits.baseline_values import BaselineValue, FixedBaselineValue
from circuits.graph import Node
from hooked_qwen.placement import device_of
from hooked_qwen.positions import follow_positions
from saes.edit_checks import check_node
from saes.features import cat
from saes.intervention import TableIndex, setting, touched
from saes.nodes import NodeSet
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Nodes to ablate, and what to set them to.

    With `kept`, everything but those nodes is ablated, whether it changes between clean and patch
    or not, as `verify` does it: the metric that is left is its m(C).

        circuits.Ablation(ablated=(circuits.Node("mlp_out.3", 812),), to="mean")

    Raises `ValueError` for both, and for neither.
    """

    ablated: tuple[Node, ...] = ()
    kept: tuple[Node, ...] | None = None
    to: BaselineValue = "zero"

    def __post_init__(self) -> None:
        if bool(self.ablated) == (self.kept is not None):
            raise ValueError("an edit ablates some nodes, or all but those that are kept")

    @property
    def inner(self) -> tuple[Node, ...]:
        """The features and errors that it names."""
        named = self.ablated if self.kept is None else self.kept
        return tuple(n for n in named if n.kind in ("feature", "error"))

    def touches(self, node: Node) -> bool:
        """Whether it names the node: at its position, or at every one; or some position of it."""
        return any(
            n[:2] == node[:2] and (None in (n.position, node.position) or n == node)
            for n in self.inner
        )

    def ablates(self, node: Node) -> bool:
        """Whether the node, a feature or an error, is ablated."""
        named = any(n in (node, node._replace(position=None)) for n in self.inner)
        return named if self.kept is None else not named

    def with_nodes(self, nodes: tuple[Node, ...]) -> "Ablation":
        """The same done to other nodes."""
        return (
            Ablation(ablated=nodes, to=self.to)
            if self.kept is None
            else Ablation(kept=nodes, to=self.to)
        )

    def kept_set(self) -> NodeSet:
        """What stays."""
        named = NodeSet.of(self.inner)
        return named.complement() if self.kept is None else named


def parse_features(text: str, suite: Suite) -> tuple[Node, ...]:
    """Nodes written as 'mlp_out.3/812,resid_post.5/17@4'.

    Raises `ValueError` for one that no dictionary of the suite has, listing the sites, and for
    one that is named twice.
    """
    nodes = tuple(Node.parse(part.strip()) for part in text.split(",") if part.strip())
    if not nodes:
        raise ValueError("no feature was named: write such as 'mlp_out.3/812,resid_post.5/17@4'")
    for node in nodes:
        check_node(suite, node)
    for i, node in enumerate(nodes):
        if node in nodes[:i]:
            raise ValueError(f"{node} is named twice: name every feature once")
        if node.position is not None and (everywhere := node._replace(position=None)) in nodes:
            raise ValueError(
                f"{everywhere} is that feature at every position, {node} among them: leave one out"
            )
    return nodes


@contextmanager
def apply(analysis: Analysis, edit: Ablation) -> Generator[None, None, None]:
    """The edit as a context manager, for running anything under it, generation included.

    A node without a position is ablated at every token, generated ones too. One with a position
    is ablated where its text has that token: tokens are counted from the start of each row's text,
    without padding and over all steps of a generation, with a cache or without. Where the analysis
    lines up last tokens (`positions="end"`) they are counted from the last token of the prompt.
    A mean is that of the position; where a text goes on beyond the prompt set's positions, that
    of all their tokens. `patch` here means the mean over the patch prompts: outside a pair there
    is no own patch.

    Raises `ValueError` for a position that the prompt set does not have, and `RuntimeError` on
    leaving if no text reached a node's position.
    """
    model, config = analysis.model, analysis.config
    n_positions = 0 if config.positions == "sum" else analysis.n_positions
    check_positions(edit, max(1, n_positions))
    to: FixedBaselineValue = "zero" if edit.to == "zero" else "mean"
    ablated = edit.kept_set().complement()
    some = analysis.at(touched(analysis.suite, ablated))
    means = None if to == "zero" else _means_anywhere(some)
    limits, device = analysis.norm_limits, device_of(model)
    base = fixed_baseline(some.suite, to, means, device=device, limits=limits)
    reached: set[int] = set()
    with follow_positions(model) as text:

        def entry() -> TableIndex:
            at = text.tokens
            if config.positions == "end":
                at = at + (n_positions - text.prompt_lengths).unsqueeze(-1)
            known = (text.tokens >= 0) & (at >= 0) & (at < n_positions)
            found = torch.where(known, at, n_positions)
            reached.update(found.unique().tolist())
            return found

        with setting(model, some.suite, [ablated], base, entry=entry):
            yield
    missed = [n for n in edit.inner if n.position is not None and n.position not in reached]
    if missed:
        raise RuntimeError(
            f"{', '.join(map(str, missed))} never edited: no text that was run inside the block "
            "has such a position"
        )


def _means_anywhere(analysis: Analysis) -> Means:
    """Means by position where these are kept, and as a last entry those over all tokens."""
    own = analysis.means
    if analysis.config.positions == "sum":
        return own
    summed = replace(analysis.config, positions="sum")
    rest = replace(analysis, config=summed).means
    return Means(
        {name: cat([own.f[name], rest.f[name]]) for name in own.f},
        {site: torch.cat([own.error[site], rest.error[site]]) for site in own.error},
        {k: torch.cat([own.of_outliers[k], rest.of_outliers[k]]) for k in own.of_outliers},
    )


def check_positions(edit: Ablation, n_positions: int) -> None:
    for node in edit.inner:
        if node.position is not None and node.position >= n_positions:
            raise ValueError(
                f"{node} names a position, but "
                + (
                    "positions are summed in this run: leave out the @"
                    if n_positions == 1
                    else f"prompts have positions 0 to {n_positions - 1}"
                )
            )
