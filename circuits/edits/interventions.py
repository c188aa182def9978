"""What edits do to each prompt, with as much of the model held as is asked for, as rows of a table.

Many edits are rows of one pass beside the prompt as it is. What the graph predicts of an edit is
what it does with attention frozen and MLPs linear: for one node that is its `effect`, scaled by how
far it moves; for several the nodes that are set do not react to each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from circuits.analysis import Analysis
from circuits.edits.held_run import Fired, has_transcoders, held_edits
from circuits.edits.make import Change, check_counted_from_start, with_means
from circuits.graph import Node, ordered
from circuits.results import Circuit
from hooked_qwen.progress import Report, counting, silent
from saes.edit_checks import check_node
from saes.edit_file import Edit, Operation, Value, Where
from transcoders.interventions import THE_GRAPH, THE_MODEL, Mode

Nodes = str | Node | Iterable[str | Node]
"One node, or several that are edited together: a supernode."


def intervene(
    source: Circuit | Analysis,
    edits: Mapping[str, Edit | Nodes] | Sequence[Edit | Nodes] | None = None,
    *,
    attention: str | Sequence[str] = "free",
    mlps: str | Sequence[str] = "model",
    do: str = "zero",
    value: Value | None = None,
    positions: Where | tuple[int, ...] = "all",
    report: Report = silent,
) -> pd.DataFrame:
    """What edits do to each prompt, with as much of the model held as is asked for.

        circuits.intervene(circuit)
        circuits.intervene(circuit, {"plural": ["mlp_out.3/481@4", "mlp_out.3/487@4"]},
                           attention=("free", "frozen"), mlps="transcoders")

    `edits` are edits, nodes or groups of nodes (supernodes), which are done together; by default
    each feature and error of the circuit alone. `do`, `value` and `positions` say what is done to
    those that are nodes; a node with a position is edited there. One row for each edit, prompt and
    mode (`transcoders.interventions`, every `attention` with every `mlps`): the metric `before` and
    `after`, its `change`, and the change that the graph predicts, None without transcoders.

    Raises `ValueError` for nodes that the suite does not have and a mode that is not known, and
    `RuntimeError` for an edit that changes nothing in any prompt.
    """
    words = [[w] if isinstance(w, str) else list(w) for w in (attention, mlps)]
    modes = [Mode.of(*pair) for pair in product(*words)]
    analysis = source.analysis if isinstance(source, Circuit) else source
    if isinstance(source, Circuit):
        check_counted_from_start(source.graph, Change())
    if edits is None:
        edits = _nodes_of(source)
    if not isinstance(edits, Mapping):
        edits = {_name(each, i): each for i, each in enumerate(edits, 1)}
    made = {
        name: each if isinstance(each, Edit) else _edit(each, analysis, do, value, positions)
        for name, each in edits.items()
    }
    if not made:
        raise ValueError("there is nothing to edit: name nodes, or give edits")
    return pd.DataFrame(intervention_rows(analysis, made, modes, report=report))


def _nodes_of(source: Circuit | Analysis) -> list[Node]:
    if not isinstance(source, Circuit):
        raise ValueError("an analysis has no nodes of its own: name nodes, or give edits")
    written = set(map(str, source.analysis.suite.writes))
    inner = [n for n in ordered(source.graph) if n.kind in ("feature", "error")]
    return [n for n in inner if n.kind == "feature" or n.site in written]


def _name(given: Edit | Nodes, number: int) -> str:
    if isinstance(given, Edit):
        return f"edit {number}"
    return given if isinstance(given, str) else ",".join(map(str, _listed(given)))


def _listed(given: Nodes) -> list[Node]:
    if isinstance(given, Node):
        return [given]
    parts = given.split(",") if isinstance(given, str) else given
    return [Node.parse(each.strip()) if isinstance(each, str) else each for each in parts]


def _edit(
    given: Nodes, analysis: Analysis, do: str, value: Value | None, positions: Where | tuple
) -> Edit:
    """One thing done to some nodes together."""
    nodes = _listed(given)
    for node in nodes:
        check_node(analysis.suite, node)
    made = [Operation(node=node, do=do, value=value, positions=positions) for node in nodes]
    return with_means(Edit(operations=tuple(made)), analysis)


def intervention_rows(
    analysis: Analysis,
    edits: Mapping[str, Edit],
    modes: Sequence[Mode] = (THE_MODEL,),
    *,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """A row for each edit, prompt and mode: the metric before and after, and what was predicted.

    `predicted` is None where no dictionary is a transcoder. Raises `ValueError` for an edit of
    other dictionaries and for a patch that is not there, and `RuntimeError` for an edit that
    changes nothing in any prompt.
    """
    named, asked = list(edits), list(dict.fromkeys(modes))
    every = [*asked, *([THE_GRAPH] if has_transcoders(analysis) and THE_GRAPH not in asked else [])]
    tick = counting(report, "interventions", len(analysis.prompts) * len(every))
    fired = Fired(list(edits.values()))
    rows = []
    for number in range(len(analysis.prompts)):
        found = {}
        for mode in every:
            found[mode] = held_edits(analysis, number, list(edits.values()), mode, fired)
            tick(1)
        predicted = found[THE_GRAPH].change.tolist() if THE_GRAPH in found else [None] * len(named)
        for mode in asked:
            before, *after = found[mode].metric.double().tolist()
            rows += [
                {
                    "edit": name,
                    "prompt": number,
                    "clean": analysis.prompts.prompts[number].clean,
                    "attention": mode.attention,
                    "mlps": mode.mlps,
                    "before": before,
                    "after": value,
                    "change": value - before,
                    "predicted": told,
                }
                for name, value, told in zip(named, after, predicted, strict=True)
            ]
    fired.require(analysis.model.tokenizer)
    return rows
