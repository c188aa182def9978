"""Make an edit: of named nodes, of a graph's strongest, of all outside a graph, of a node file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import networkx as nx
import torch

from circuits.analysis import Analysis
from circuits.attribution.means import Means
from circuits.edits.ablation import parse_features
from circuits.graph import Node, ordered
from circuits.results import Circuit
from hooked_qwen.nodes import EVERY
from hooked_qwen.sites import Site
from saes.edit_checks import check_node
from saes.edit_file import Condition, Edit, Mean, Operation, Value, Where
from saes.identity import suite_hash
from saes.operations import kind_of
from saes.suite import Suite

ErrorTerms = Literal["keep", "drop"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is done to nodes, whichever they are."""

    do: str = "zero"
    "a row of `saes.operations.OPERATIONS`"
    value: Value | None = None
    positions: Where | tuple[int, ...] | None = None
    "of tokens; by default each node's own, every one for a node that has none"
    when: Condition | None = None
    errors: ErrorTerms = "keep"
    "`drop` does it to the error terms of the sites too: where it cannot be, they go to zero"

    def of(self, node: Node, besides: tuple[Node, ...] = ()) -> Operation:
        """The operation on one node."""
        do, value = self.do, self.value
        if node.kind == "error" and not kind_of(do).of_errors:
            do, value = "zero", None
        where = "all" if self.positions is None else self.positions
        return Operation(
            node=node, do=do, value=value, positions=where, when=self.when, besides=besides
        )

    def placed(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        """The nodes without their positions, where others are asked for; each once."""
        if self.positions is not None:
            nodes = (node._replace(position=None) for node in nodes)
        return tuple(dict.fromkeys(nodes))


def edit_of(nodes: Iterable[Node], suite: Suite, change: Change | None = None) -> Edit:
    """The edit that does one thing to some nodes: the features among them.

    Errors among them are left as they are unless they are dropped; then those of every site that
    the features write are too. Raises `ValueError` for a node that the suite does not have, and
    where nothing is left to do.
    """
    change = change or Change()
    chosen = change.placed(n for n in nodes if n.kind in ("feature", "error"))
    features = [n for n in chosen if n.kind == "feature"]
    named = [n for n in chosen if n.kind == "error"] if change.errors == "drop" else []
    sites = {site for n in features for site in suite.writes_of(_known(suite, n).site)}
    if change.errors == "drop":
        sites -= {Site.parse(n.site) for n in named}
        named += [Node(str(site), "error") for site in sorted(sites)]
    if not (features or named):
        raise ValueError(
            "no feature is selected, so there is nothing to edit: name some, or take error terms "
            "with --errors drop"
        )
    return _made(suite, [change.of(_known(suite, n)) for n in [*features, *named]])


def edit_outside(nodes: Iterable[Node], suite: Suite, change: Change | None = None) -> Edit:
    """The edit that does one thing to every feature but those among `nodes`, at all sites.

    Error terms are left as they are, or, dropped, those that are not among `nodes` are changed.
    """
    change = change or Change()
    kept = change.placed(n for n in nodes if n.kind in ("feature", "error"))
    made = [
        change.of(
            Node(name, EVERY), tuple(n for n in kept if n.kind == "feature" and n.site == name)
        )
        for name in suite
    ]
    if change.errors == "drop":
        for site in map(str, suite.writes):
            own = tuple(n for n in kept if n.kind == "error" and n.site == site)
            if all(n.position is not None for n in own):
                made.append(change.of(Node(site, "error"), own))
    return _made(suite, made)


def _known(suite: Suite, node: Node) -> Node:
    check_node(suite, node)
    return node


def _made(suite: Suite, operations: Sequence[Operation]) -> Edit:
    for operation in operations:
        if operation.when is not None:
            check_node(suite, operation.when.node)
        for node in operation.besides:
            check_node(suite, node)
    return Edit(operations=tuple(operations), suite=suite_hash(suite), suite_name=suite.summary())


def strongest(graph: nx.DiGraph, n: int) -> tuple[Node, ...]:
    """The `n` strongest features of a graph; `ValueError` where it has fewer."""
    found = [node for node in ordered(graph) if node.kind == "feature"]
    if not 1 <= n <= len(found):
        raise ValueError(f"the graph has {len(found)} features: expected --top 1 to {len(found)}")
    return tuple(found[:n])


def check_counted_from_start(graph: nx.DiGraph, change: Change) -> None:
    """Raise `ValueError` for nodes whose positions are counted from the last token."""
    shortest, longest = graph.graph.get("prompt_lengths", (0, 0))
    if change.positions is None and graph.graph.get("positions") == "end" and shortest < longest:
        raise ValueError(
            "positions of this graph are counted from the last token, those of an edit from the "
            "first: say at which tokens it is done with --positions, such as all or last"
        )


def with_means(edit: Edit, analysis: Analysis) -> Edit:
    """The edit with what `mean` stands for in it: means over the prompts of an analysis.

    Over the patch prompts, where there are any; of a node with a position there, of the others
    over all tokens; norm outliers do not count.
    """
    needed = [op.node for op in edit.operations if op.needs == "mean"]
    if not needed:
        return edit
    analysis = analysis.at(site for node in needed for site in _written(analysis.suite, node))
    summed = replace(analysis, config=replace(analysis.config, positions="sum"))
    means: dict[Node, Mean] = {}
    for node in needed:
        of, at = (summed, 0) if node.position is None else (analysis, node.position)
        means[node] = _mean(of.means, node, at)
    return replace(edit, means={**edit.means, **means})


def _written(suite: Suite, node: Node) -> Sequence[Site]:
    """The sites that change with a node."""
    return [Site.parse(node.site)] if node.kind == "error" else suite.writes_of(node.site)


def _mean(means: Means, node: Node, position: int) -> Mean:
    if node.kind == "error":
        return means.error[Site.parse(node.site)][position].cpu()
    found = means.f[node.site][position]
    if node.feature == EVERY:
        return found.dense().cpu()
    return float(found.of(torch.tensor([int(node.feature)], device=found.index.device))[0])


def edit(
    source: Circuit | Analysis,
    nodes: str | Iterable[Node] = (),
    *,
    top: int | None = None,
    outside: bool = False,
    do: str = "zero",
    value: Value | None = None,
    positions: Where | tuple[int, ...] | None = None,
    when: Condition | None = None,
    errors: ErrorTerms = "keep",
) -> Edit:
    """An edit of nodes that are named, of a circuit's `top` features, or of all `outside` it.

        edit = circuits.edit(circuit, top=10, do="scale", value=0.5, positions="all")
        with edit.applied(circuit.analysis):
            circuit.analysis.model.generate("The keys near the cabinet")

    Raises `ValueError` for nodes that the suite does not have, and where none are named.
    """
    change = Change(do=do, value=value, positions=positions, when=when, errors=errors)
    analysis = source.analysis if isinstance(source, Circuit) else source
    suite = analysis.suite
    named = (parse_features(nodes, suite) if nodes else ()) if isinstance(nodes, str) else nodes
    if (top is None) == (not outside) and not named:
        raise ValueError("say what to edit: nodes, top=N or outside=True")
    if named := tuple(named):
        made = edit_of(named, suite, change)
    else:
        if not isinstance(source, Circuit):
            raise ValueError(
                "top and outside are of a circuit, and this is an analysis: name nodes"
            )
        check_counted_from_start(source.graph, change)
        made = (
            edit_outside(source.graph, suite, change)
            if outside
            else edit_of(strongest(source.graph, top or 0), suite, change)
        )
    return with_means(made, analysis)
