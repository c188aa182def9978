"""What an edit does, in sentences and row by row, without any model or dictionary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hooked_qwen.html_tables import ROWS, html_rows, paragraph
from hooked_qwen.nodes import EVERY
from hooked_qwen.notices import counted
from hooked_qwen.sites import forward_order
from saes.edit_file import Edit, Operation
from saes.operations import kind_of

NAMED = 6
"Sites that a sentence lists."
WHERE = {
    "all": "at every token",
    "prompt": "at the tokens of the prompt",
    "generated": "at generated tokens",
    "last": "at the last token of the prompt and each generated one",
}


@dataclass(frozen=True)
class OperationRow:
    """One operation, said."""

    node: str
    does: str
    where: str
    when: str
    short: str
    "what it does as a badge says it: `×0`"


def rows(edit: Edit) -> list[OperationRow]:
    """Every operation, in order."""
    return [
        OperationRow(
            _node(op), _does(op, edit), _where(op), _when(op).removeprefix("where "), short(op)
        )
        for op in edit.operations
    ]


def as_html(edit: Edit) -> str:
    """What the edit does in words, and its first operations as a table, for a notebook."""
    listed = rows(edit)
    table = html_rows(
        ("node", "what it does", "where", "when"),
        [(row.node, row.does, row.where, row.when) for row in listed[:ROWS]],
    )
    more = len(listed) - ROWS
    rest = paragraph(f"and {counted(more, 'more operation')}") if more > 0 else ""
    return "".join(map(paragraph, in_words(edit))) + table + rest


def said(op: Operation) -> str:
    """What one operation does, where and when, its node aside."""
    return " ".join(part for part in (_does(op), _where(op), _when(op)) if part)


def short(op: Operation) -> str:
    """What one operation does, for the badge of a figure; `if` where it has a condition."""
    done = kind_of(op.do).short.format(value=op.value) or op.do
    return (done + (" if" if op.when is not None else "")).replace("-", "\N{MINUS SIGN}")


def in_words(edit: Edit) -> list[str]:
    """What the edit does to how many features where, a line for each thing that it does."""
    alike: dict[tuple[str, str, str], list[Operation]] = {}
    for op in edit.operations:
        own = f"each at its own position{_but_outliers(op)}"
        where = own if op.node.position is not None else _where(op)
        alike.setdefault((_does(op), where, _when(op)), []).append(op)
    lines = [
        " ".join(part for part in (_subject(ops), does, where, when) if part)
        for (does, where, when), ops in alike.items()
    ]
    if not any(op.node.kind == "error" for op in edit.operations):
        lines.append("error terms stay as they are")
    of = f"features of {edit.suite_told()}" if edit.suite else "of any suite: it names none"
    return [*lines, of]


def _subject(operations: Sequence[Operation]) -> str:
    """Which nodes these are: how many of what, and where."""
    every = [op for op in operations if op.node.feature == EVERY]
    errors = {op.node for op in operations if op.node.kind == "error"}
    single = {op.node for op in operations if op.node.kind == "feature"} - {o.node for o in every}
    parts = []
    if single:
        parts.append(f"{counted(len(single), 'feature')} of {_sites(n.site for n in single)}")
    if every:
        but = len({node for op in every for node in op.besides})
        told = f" but {counted(but, 'feature')}" if but else ""
        parts.append(f"every feature of {_sites(op.node.site for op in every)}{told}")
    if errors:
        parts.append(f"{counted(len(errors), 'error term')} of {_sites(n.site for n in errors)}")
    return " and ".join(parts) + ":"


def _sites(sites: Iterable[str]) -> str:
    found = sorted(set(sites), key=forward_order)
    more = len(found) - NAMED
    return ", ".join(found[:NAMED]) + (f" and {counted(more, 'other site')}" if more > 0 else "")


def _node(op: Operation) -> str:
    return f"{op.node} but {len(op.besides):,} of them" if op.besides else str(op.node)


def _does(op: Operation, edit: Edit | None = None) -> str:
    said = kind_of(op.do).said.format(value=op.value) or op.do
    if op.needs == "mean" and edit is not None:
        mean = edit.mean_of(op.node)
        return f"{said}, {mean:.4g}" if isinstance(mean, int | float) else said
    return said


def _where(op: Operation) -> str:
    if isinstance(op.positions, str):
        found = WHERE[op.positions]
    else:
        found = f"at the positions {', '.join(map(str, op.positions))}"
    if op.node.position is not None:
        here = f"at position {op.node.position}"
        found = here if op.positions == "all" else f"{here}, if {found}"
    return f"{found}{_but_outliers(op)}"


def _but_outliers(op: Operation) -> str:
    return " but norm outliers" if op.norm_below else ""


def _when(op: Operation) -> str:
    return "" if op.when is None else f"where {op.when.node} is above {op.when.above:g}"
