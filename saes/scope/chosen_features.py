"""Some features of some dictionaries, read in a plain Hugging Face model that may be in training.

    pre_s(x) = W_enc[s] . x + b_enc[s]        of what the dictionary of s reads

Only the rows of the features asked for are held, so this costs little beside a training pass.
Tokens count that are trained on, all but a text's first, and are no norm outlier at what is read:
these are a hundred times as long as the rest and would decide every mean alone.

Axes: `chosen` features in the order asked for; `batch`, `pos` texts and their tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hooked_qwen.nodes import Node
from hooked_qwen.placement import device_of
from hooked_qwen.plain_model import captured
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import by_length
from saes.dictionary import SparseDictionary, fitted, side_by_side
from saes.scope.alike import NEAREST, alike, log_density
from saes.suite import Suite

TOKENS_PER_PASS = 2048
Seen = Mapping[Site, Tensor]


@dataclass(frozen=True)
class _Rows:
    """The chosen features of one dictionary."""

    reads: tuple[Site, ...]
    columns: Int[Tensor, " of_dictionary"]
    "where they stand among the chosen"
    W_enc: Float[Tensor, "of_dictionary d_source"]
    b_enc: Float[Tensor, " of_dictionary"]


@dataclass(frozen=True)
class ChosenFeatures:
    """Features by name, and what their encoders read."""

    nodes: tuple[Node, ...]
    rows: tuple[_Rows, ...]

    @property
    def sites(self) -> list[Site]:
        """What is read for them, in the order of the forward pass."""
        return sorted({site for rows in self.rows for site in rows.reads})

    def pre_activations(self, seen: Seen) -> Float[Tensor, "batch pos chosen"]:
        """What each of them reads, in float32 (float64 of a float64 model)."""
        found: list[Tensor] = []
        # In mixed precision the product would be rounded to half of it.
        with torch.autocast(next(iter(seen.values())).device.type, enabled=False):
            for rows in self.rows:
                x = widened(side_by_side(seen, rows.reads))
                found.append(x @ rows.W_enc.to(x).T + rows.b_enc.to(x))
        order = torch.cat([rows.columns for rows in self.rows]).argsort()
        return torch.cat(found, -1).index_select(-1, order.to(found[0].device))

    def counted(
        self, seen: Seen, trained: Bool[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
    ) -> Bool[Tensor, "batch pos"]:
        """Of the tokens `trained` on those that are no norm outlier at any site that is read."""
        for site in self.sites:
            trained = trained & ~is_outlier_in_prompt(seen[site].detach(), mask)
        return trained


def check_nodes(suite: Suite, nodes: Sequence[Node]) -> None:
    """Raise `ValueError` for none, for one named twice, and for what is no feature of the suite."""
    if not nodes:
        raise ValueError("no feature is named: give at least one, such as resid_post.3/17")
    if len(set(nodes)) < len(nodes):
        twice = next(node for node in nodes if list(nodes).count(node) > 1)
        raise ValueError(f"{twice} is named twice: give every feature once")
    for node in nodes:
        _index(suite, node)


def chosen_features(suite: Suite, nodes: Sequence[Node], model: nn.Module) -> ChosenFeatures:
    """The named features of a suite, on the model's device.

    Raises `ValueError` as `check_nodes`.
    """
    check_nodes(suite, nodes)
    rows = []
    for name in dict.fromkeys(node.site for node in nodes):
        columns = [i for i, node in enumerate(nodes) if node.site == name]
        index = torch.tensor([_index(suite, nodes[i]) for i in columns])
        dictionary, device = suite[name], device_of(model)
        rows.append(
            _Rows(
                reads=dictionary.reads,
                columns=torch.tensor(columns),
                W_enc=dictionary.W_enc[index.to(dictionary.W_enc.device)].to(device),
                b_enc=dictionary.b_enc[index.to(dictionary.b_enc.device)].to(device),
            )
        )
    return ChosenFeatures(tuple(nodes), tuple(rows))


def _index(suite: Suite, node: Node) -> int:
    if node.kind != "feature" or not isinstance(node.feature, int) or node.position is not None:
        raise ValueError(
            f"{node} is no feature of a dictionary at every token: write SITE/FEATURE, "
            "such as resid_post.3/17"
        )
    if node.site not in suite:
        raise ValueError(f"no dictionary is called {node.site}: there are {', '.join(suite)}")
    width = suite[node.site].n_features
    if node.feature >= width:
        raise ValueError(f"{node.site} has features 0 to {width - 1}, not {node.feature}")
    return node.feature


def passes(
    model: nn.Module, rows: Sequence[Sequence[int]], sites: Sequence[Site]
) -> Iterator[tuple[Seen, Bool[Tensor, "batch pos"]]]:
    """What flows at some sites in texts of tokens, and which tokens are trained on."""
    at_once = max(1, TOKENS_PER_PASS // max(map(len, rows)))
    for _, tokens in by_length(rows, at_once):
        tokens = tokens.to(device_of(model))
        trained = torch.ones_like(tokens, dtype=torch.bool)
        trained[:, 0] = False
        with torch.no_grad(), captured(model, sites) as seen:
            cast(Any, model).get_decoder()(input_ids=tokens, use_cache=False)
        yield seen, trained


def mean_pre_activations(
    model: nn.Module, chosen: ChosenFeatures, rows: Sequence[Sequence[int]]
) -> Float[Tensor, " chosen"]:
    """Of each feature over the tokens that count, in float64 on the host.

    Raises `ValueError` where no token counts.
    """
    return survey(model, Suite({}, {}), (), rows, [chosen])[1][0]


@dataclass(frozen=True)
class FiringStatistics:
    """How the features of one dictionary are on in some texts."""

    density: Float[Tensor, " features"]
    "share of the tokens that count where a feature is on"
    mean: Float[Tensor, " features"]
    "activation over all tokens that count"
    largest: Float[Tensor, " features"]


class _Tally:
    """Sums over the tokens that count, for one dictionary; on the host."""

    def __init__(self, dictionary: SparseDictionary) -> None:
        self.dictionary = dictionary
        self.sums = torch.zeros(3, dictionary.n_features, dtype=torch.float64)
        self.tokens = 0

    def add(self, seen: Seen, trained: Bool[Tensor, "batch pos"]) -> None:
        x = widened(side_by_side(seen, self.dictionary.reads))
        f = self.dictionary.encode(x[trained & ~is_outlier_in_prompt(x, torch.ones_like(trained))])
        index, value = f.index.flatten().cpu(), f.value.flatten().cpu().double()
        fired, total, largest = self.sums
        fired.index_add_(0, index, (value != 0).double())
        total.index_add_(0, index, value)
        largest.scatter_reduce_(0, index, value, "amax")
        self.tokens += len(f.index)

    def firing(self) -> FiringStatistics:
        fired, total, largest = self.sums
        return FiringStatistics(fired / self.tokens, total / self.tokens, largest)


def firing(
    model: nn.Module, suite: Suite, names: Sequence[str], rows: Sequence[Sequence[int]]
) -> dict[str, FiringStatistics]:
    """Of whole dictionaries, by name; on the host."""
    return survey(model, suite, names, rows, ())[0]


def survey(
    model: nn.Module,
    suite: Suite,
    names: Sequence[str],
    rows: Sequence[Sequence[int]],
    chosen: Sequence[ChosenFeatures],
) -> tuple[dict[str, FiringStatistics], list[Float[Tensor, " chosen"]]]:
    """`firing` of dictionaries, and `mean_pre_activations` of some sets of features, in one pass.

    Raises `ValueError` where no token counts.
    """
    tallies = {name: _Tally(fitted(suite[name], model)) for name in names}
    sums = [torch.zeros(len(one.nodes), dtype=torch.float64) for one in chosen]
    tokens = [0] * len(chosen)
    sites = {site for tally in tallies.values() for site in tally.dictionary.reads}
    sites = sorted(sites.union(*(one.sites for one in chosen)))
    for seen, trained in passes(model, rows, sites):
        for tally in tallies.values():
            tally.add(seen, trained)
        for i, one in enumerate(chosen):
            counts = one.counted(seen, trained, torch.ones_like(trained))
            pre = one.pre_activations(seen)
            sums[i] += (pre * counts.unsqueeze(-1)).sum((0, 1)).cpu().double()
            tokens[i] += int(counts.sum())
    if not all([*tokens, *(tally.tokens for tally in tallies.values())]):
        raise ValueError("no token of the texts counts: each needs two at least")
    means = [total / n for total, n in zip(sums, tokens, strict=True)]
    return {name: tally.firing() for name, tally in tallies.items()}, means


def random_like(
    nodes: Sequence[Node],
    of: Mapping[str, FiringStatistics],
    *,
    seed: int = 0,
    nearest: int = NEAREST,
) -> tuple[Node, ...]:
    """For each feature another of its dictionary that is on about as often, each once.

    Drawn among the `nearest` whose density is nearest on a logarithmic scale. Raises `ValueError`
    where a dictionary has too few features for it.
    """
    generator = torch.Generator().manual_seed(seed)
    taken, found = set(nodes), []
    for node in nodes:
        density = log_density(of[node.site].density)
        free = torch.ones(len(density), dtype=torch.bool)
        free[[int(other.feature) for other in taken if other.site == node.site]] = False
        pool = alike(density, int(node.feature), free, nearest=nearest)
        if not pool:
            raise ValueError(
                f"{node.site} has {len(density)} features, too few to draw a random one beside "
                f"each of those chosen: choose fewer"
            )
        drawn = pool[int(torch.randint(len(pool), (1,), generator=generator))]
        found.append(Node(node.site, drawn))
        taken.add(found[-1])
    return tuple(found)
