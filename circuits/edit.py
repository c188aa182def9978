"""Cut features out of the model, run the prompts again, and look at what changed.

An edit ablates some nodes and leaves the rest of each site as it is, error included; sites
downstream react. Ablated to `zero`, to their `mean` over the patch prompts (by position where
positions are kept), or to the value they have on each prompt's own `patch`.
"""

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation import Entry, Masks, complement, masks_of, only
from circuits.answers import metric_of, preference_of
from circuits.attribution.states import BatchState, Means, batches, norm_limits
from circuits.faithfulness import To, ablation_means, baselines, by_site, metric_with
from circuits.graph import Node, rounded
from circuits.metric import on_clean
from circuits.prompts import EncodedPrompts, Prompt
from circuits.ranking import DiscoverConfig, Ranking
from hooked_qwen.positions import follow_positions
from hooked_qwen.sites import Site
from saes.suite import Suite

SCHEMA = "ablation/1"
DRAWS = 3
Outcome = Float[Tensor, "2 prompts"]
"The metric of each prompt, and the logit difference that says whether the answer is preferred."


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Nodes to ablate, and what to set them to."""

    ablated: tuple[Node, ...]
    to: To = "zero"

    def masks(self, suite: Suite, n_positions: int) -> Masks:
        """What stays: everything but the ablated nodes."""
        return complement(masks_of(suite, self.ablated, n_positions))


def parse_features(text: str, suite: Suite) -> tuple[Node, ...]:
    """Nodes written as 'mlp_out.3/812,resid_post.5/17@4'.

    Raises `ValueError` for one that no dictionary of the suite has, listing the sites, and for
    one that is named twice.
    """
    nodes = tuple(Node.parse(part.strip()) for part in text.split(",") if part.strip())
    if not nodes:
        raise ValueError("no feature was named: write such as 'mlp_out.3/812,resid_post.5/17@4'")
    for node in nodes:
        _check_node(node, suite)
    nodes = tuple(n._replace(site=str(Site.parse(n.site))) for n in nodes)
    for i, node in enumerate(nodes):
        if node in nodes[:i]:
            raise ValueError(f"{node} is named twice: name every feature once")
        if node.position is not None and (everywhere := node._replace(position=None)) in nodes:
            raise ValueError(
                f"{everywhere} is that feature at every position, {node} among them: leave one out"
            )
    return nodes


def _check_node(node: Node, suite: Suite) -> None:
    if node.kind not in ("feature", "error") or Site.parse(node.site) not in suite:
        raise ValueError(
            f"there is no dictionary for {node}: the sites are {', '.join(map(str, suite))}"
        )
    size = suite[Site.parse(node.site)].n_features
    if node.feature != "error" and not 0 <= int(node.feature) < size:
        raise ValueError(f"{node.site} has features 0 to {size - 1}, so there is no {node}")


def ablate(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    edit: Edit,
    ranking: Ranking,
    *,
    config: DiscoverConfig,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the prompts with and without the edit; the record of `result.json`.

    Controls ablate as many random nodes at the same sites, among those that move; `seed` draws
    them.
    """
    if edit.to == "patch" and prompts.patch is None:
        raise ValueError("the prompts have no patch to ablate to: use --to zero or mean")
    suite = suite.fitting(model)
    metric = metric_of(config.metric, model, prompts, suite, positions=config.positions)
    preference = preference_of(prompts)
    options = {"positions": config.positions, "batch_size": config.batch_size}
    means = ablation_means(model, suite, prompts, **options) if edit.to == "mean" else None
    states = _states(model, suite, prompts, config)
    n_positions = prompts.n_positions(config.positions)
    _check_positions(edit, n_positions)
    before = torch.stack(
        [
            torch.cat([on_clean(m, s.logits, s.rows).double() for s in states])
            for m in (metric, preference)
        ]
    )
    spared = _spared(suite, states, edit, means)

    def run(nodes: Sequence[Node]) -> Outcome:
        masks = Edit(ablated=tuple(nodes), to=edit.to).masks(suite, n_positions)
        found = metric_with(model, suite, states, metric, masks, edit.to, means)
        if config.metric == "logit-difference":
            return torch.stack([found, found])
        preferred = metric_with(model, suite, states, preference, masks, edit.to, means)
        return torch.stack([found, preferred])

    after = run(edit.ablated)
    draws = [run(nodes) for nodes in _random_nodes(edit, ranking, seed)]
    return {
        "schema": SCHEMA,
        "features": [str(node) for node in edit.ablated],
        "to": edit.to,
        "spared": spared,
        **_summary("before", before),
        **_summary("after", after),
        "controls": [_control(draws, len(edit.ablated))] if draws else [],
        "prompts": [
            _one_prompt(prompt, *metrics)
            for prompt, *metrics in zip(
                prompts.prompts, before[0].tolist(), after[0].tolist(), strict=True
            )
        ],
    }


def _one_prompt(prompt: Prompt, before: float, after: float) -> dict[str, Any]:
    return {
        "clean": prompt.clean,
        "answer": prompt.answer[0],
        "wrong": prompt.wrong[0] if prompt.wrong else None,
        "before": rounded(before),
        "after": rounded(after),
    }


@contextmanager
def apply(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    edit: Edit,
    *,
    config: DiscoverConfig,
) -> Generator[None, None, None]:
    """The edit as a context manager, for running anything under it, generation included.

    A node without a position is ablated at every token, generated ones too. One with a position
    is ablated where its text has that token: tokens are counted from the start of each row's text,
    without padding and over all steps of a generation, with a cache or without. Where `config`
    lines up last tokens (`positions="end"`) they are counted from the last token of the prompt.
    A mean is that of the position; where a text goes on beyond the prompt set's positions, that
    of all their tokens. `patch` here means the mean over the patch prompts: outside a pair there
    is no own patch.

    Raises `ValueError` for a position that the prompt set does not have, and `RuntimeError` on
    leaving if no text reached a node's position.
    """
    suite = suite.fitting(model)
    n_positions = 0 if config.positions == "sum" else prompts.n_positions(config.positions)
    _check_positions(edit, max(1, n_positions))
    to: To = "zero" if edit.to == "zero" else "mean"
    means = None if to == "zero" else _means_anywhere(model, suite, prompts, config)
    limits = norm_limits(model, suite, prompts.clean, batch_size=config.batch_size)
    base = baselines(suite, to, means=means, limits=limits)
    reached: set[int] = set()
    with follow_positions(model) as text:

        def entry() -> Entry:
            at = text.tokens
            if config.positions == "end":
                at = at + (n_positions - text.prompt_lengths).unsqueeze(-1)
            known = (text.tokens >= 0) & (at >= 0) & (at < n_positions)
            found = torch.where(known, at, n_positions)
            reached.update(found.unique().tolist())
            return found

        with only(model, suite, edit.masks(suite, n_positions + 1), base, entry=entry):
            yield
    missed = [n for n in edit.ablated if n.position is not None and n.position not in reached]
    if missed:
        raise RuntimeError(
            f"{', '.join(map(str, missed))} never edited: no text that was run inside the block "
            "has such a position"
        )


def _means_anywhere(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, config: DiscoverConfig
) -> Means:
    """Means by position where these are kept, and as a last entry those over all tokens."""
    size = config.batch_size
    rest = ablation_means(model, suite, prompts, positions="sum", batch_size=size)
    if config.positions == "sum":
        return rest
    own = ablation_means(model, suite, prompts, positions=config.positions, batch_size=size)
    return Means(
        *(
            {
                site: torch.cat([getattr(own, part)[site], getattr(rest, part)[site]])
                for site in suite
            }
            for part in ("f", "error", "of_outliers")
        )
    )


def outside(ranking: Ranking, kept: Sequence[Node]) -> tuple[Node, ...]:
    """Every node that moves and is not among `kept`."""
    inside = set(kept)
    return tuple(n for n, _ in ranking if n.kind != "token" and n not in inside)


def _check_positions(edit: Edit, n_positions: int) -> None:
    for node in edit.ablated:
        if node.position is not None and node.position >= n_positions:
            raise ValueError(
                f"{node} names a position, but "
                + (
                    "positions are summed in this run: leave out the @"
                    if n_positions == 1
                    else f"prompts have positions 0 to {n_positions - 1}"
                )
            )


def _spared(suite: Suite, states: Sequence[BatchState], edit: Edit, means: Means | None) -> int:
    """How many tokens of the ablated nodes are norm outliers that stay; not all may be."""
    spared = named = 0
    for state in states:
        base = baselines(suite, edit.to, means=means, state=state)
        for node in edit.ablated:
            here, at = base[Site.parse(node.site)], slice(None)
            if node.position is not None:
                at = slice(node.position, node.position + 1)
            tokens = state.clean.mask[:, at]
            named += int(tokens.sum())
            if here.stays is not None and here.outlier is not None:
                spared += int((here.outlier & here.stays)[:, at].sum())
    if named and spared == named:
        raise ValueError(
            f"nothing would be ablated: {', '.join(map(str, edit.ablated))} stand only on norm "
            f"outliers, which stay as they are when nodes go to {edit.to}; use --to patch"
        )
    return spared


def _states(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, config: DiscoverConfig
) -> list[BatchState]:
    reference = "patch" if prompts.patch is not None else "zero"
    return list(batches(model, suite, prompts, reference=reference, batch_size=config.batch_size))


def _random_nodes(edit: Edit, ranking: Ranking, seed: int) -> list[list[Node]]:
    """Nodes that move, at the sites of the edit's, none of them in it; empty if too few."""
    inside = set(edit.ablated)
    pool = by_site([n for n, _ in ranking if n not in inside])
    wanted = by_site(edit.ablated)
    if any(len(pool.get(group, [])) < len(members) for group, members in wanted.items()):
        return []
    return [
        [
            node
            for group, members in wanted.items()
            for node in random.Random(seed * DRAWS + draw).sample(pool[group], len(members))
        ]
        for draw in range(DRAWS)
    ]


def _summary(when: str, values: Outcome) -> dict[str, float | None]:
    metric, preference = values
    return {
        when: rounded(float(metric.mean())),
        f"accuracy_{when}": rounded(float((preference > 0).double().mean())),
    }


def _control(draws: Sequence[Outcome], n: int) -> dict[str, Any]:
    values = torch.cat(list(draws), 1)
    return {"name": f"{n} random nodes at the same sites", **_summary("after", values)}
