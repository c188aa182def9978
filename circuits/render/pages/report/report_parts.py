"""What a report says of how well a circuit stands: verification, ablations, reruns, as tables.

Intervals are 95 % ones, as in the records they come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.discovery.verdicts import of_verification
from circuits.render.words import counted, readable, row_name
from hooked_qwen.percents import percent

SIZES = 6
"Sizes of circuits that a table has columns for, of those that were measured."
TableRow = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    title: str
    columns: TableRow
    rows: Sequence[TableRow]
    numbers: tuple[int, ...] = ()
    "columns of numbers"


@dataclass(frozen=True, kw_only=True)
class Figure:
    source: str
    "a data URI: what an image shows cannot run"
    caption: str


@dataclass(frozen=True, kw_only=True)
class ReportPart:
    title: str
    lines: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[ReportTable] = ()
    commands: Sequence[str] = ()


def verification_part(record: Mapping[str, Any] | None, curves: Sequence[str]) -> ReportPart | None:
    if record is None:
        return ReportPart(
            title="Verification", lines=["Not verified: circuits verify has not run on it."]
        )
    captions = ["Faithfulness and completeness by size, controls, and estimate against exact."]
    figures = [
        Figure(source=source, caption=captions[0] if i == 0 else "")
        for i, source in enumerate(curves)
    ]
    tables = [_agreement(record)]
    if "node_modes" in record:
        tables.append(_modes(record))
    told = []
    if record.get("curves"):
        tables += [
            _faithfulness(record[part], name)
            for part, name in (("curves", "the run's prompts"), ("held_out", "held-out prompts"))
            if record.get(part)
        ]
        told = [str(line) for line in of_verification(record)]
    adds = record.get("each_adds") or {}
    if adds.get("faithfulness") is not None:
        kept = spanned(adds["faithfulness"], adds.get("interval"))
        told.insert(0, f"The graph as it stands has a faithfulness of {kept}.")
    return ReportPart(title="Verification", lines=told, figures=figures, tables=tables)


def _agreement(record: Mapping[str, Any]) -> ReportTable:
    parts = {"nodes of the graph": record["nodes"]}
    edges = record.get("edges") or {}
    parts |= {f"{n} edges": edges[n] for n in ("strongest", "random") if edges.get(n)}
    if record.get("pool"):
        parts["nodes that the estimator did not choose"] = record["pool"]
    rows = [
        [
            name,
            str(found["n"]),
            *(
                spanned(found.get(figure), (found.get("intervals") or {}).get(figure))
                for figure in ("spearman", "slope", "sign_agreement")
            ),
        ]
        for name, found in parts.items()
    ]
    return ReportTable(
        title=f"Estimates ({record['estimator']}) against exact ablation, 95 % intervals",
        columns=("of", "n", "Spearman", "slope", "same sign"),
        rows=rows,
        numbers=(1, 2, 3, 4),
    )


def _modes(record: Mapping[str, Any]) -> ReportTable:
    """A replacement graph's predictions against interventions, by what was held."""
    figures = ("spearman", "pearson", "slope", "sign_agreement", "weighted_sign_agreement")
    rows = [
        [
            f"{row['n']} {what}",
            row["attention"],
            row["mlps"],
            *(spanned(row[figure], row["intervals"].get(figure)) for figure in figures),
        ]
        for what, part in (("nodes", "node_modes"), ("edges", "edge_modes"))
        for row in record[part]
    ]
    return ReportTable(
        title="The graph's predictions against interventions, by how much of the model is held",
        columns=(
            "of",
            "attention",
            "MLPs",
            "Spearman",
            "Pearson",
            "slope",
            "same sign",
            "weighted",
        ),
        rows=rows,
        numbers=(3, 4, 5, 6, 7),
    )


def _faithfulness(curves: Mapping[str, Any], of: str) -> ReportTable:
    """Each row of a record at some sizes, with its interval."""
    sizes = curves["sizes"]
    step = max(1, -(-len(sizes) // SIZES))
    shown = list(range(len(sizes)))[::-1][::step][::-1]
    rows = [
        [
            row_name(name),
            *(
                spanned(row["faithfulness"][i], _ends(row, i)) if row["faithfulness"] else "–"
                for i in shown
            ),
        ]
        for name, row in curves["rows"].items()
    ]
    return ReportTable(
        title=f"Faithfulness by the number of nodes that are kept, on {of}; the others at "
        f"{curves.get('baseline', 'the same')}, 95 % intervals",
        columns=("kept", *(f"{sizes[i]:,}" for i in shown)),
        rows=rows,
        numbers=tuple(range(1, len(shown) + 1)),
    )


def _ends(row: Mapping[str, Any], i: int) -> tuple[float, float] | None:
    low, high = row.get("low") or (), row.get("high") or ()
    if i >= min(len(low), len(high)) or low[i] is None:
        return None
    return low[i], high[i]


def stability_part(record: Mapping[str, Any] | None) -> ReportPart | None:
    if record is None:
        return None
    names = {"jaccard": "with the circuit", "between_draws": "of two draws with each other"}
    lines = [
        f"Overlap (Jaccard) of circuits found on draws of the prompts, {told}: "
        f"{spanned(record['nodes'][name]['value'], record['nodes'][name]['interval'])}."
        for name, told in names.items()
    ]
    return ReportPart(title="Found again", lines=lines)


def cuts_part(
    ablations: Mapping[str, Any], edited: Mapping[str, Any], reruns: Mapping[str, Any]
) -> ReportPart | None:
    """Ablations, circuits edited by hand and reruns, each with its controls."""
    tables = []
    if ablations:
        tables.append(_ablations(ablations))
    if edited:
        rows = [
            [
                readable(name),
                row_name(row),
                spanned(found.get("faithfulness"), found.get("interval")),
            ]
            for name, record in edited.items()
            for row, found in (record.get("rows") or {}).items()
            if isinstance(found, Mapping)
        ]
        tables.append(
            ReportTable(
                title="Circuits edited by hand: faithfulness",
                columns=("graph", "kept", "faithfulness"),
                rows=rows,
                numbers=(2,),
            )
        )
    if reruns:
        tables.append(_reruns(reruns))
    return ReportPart(title="Cut and run again", tables=tables) if tables else None


def _ablations(ablations: Mapping[str, Mapping[str, Any]]) -> ReportTable:
    rows = []
    for name, record in ablations.items():
        nodes = record.get("features") or ()
        what = counted(len(nodes), "node") if nodes else "all outside the graph"
        before, accuracy = record["before"], record.get("accuracy_before")
        rows.append([readable(name), "nothing", number(before), _share(accuracy)])
        cut = f"{what} at {record['to']}"
        rows.append(["", cut, number(record["after"]), _share(record.get("accuracy_after"))])
        rows += [
            ["", readable(c["name"]), number(c["after"]), _share(c.get("accuracy_after"))]
            for c in record.get("controls") or ()
        ]
    return ReportTable(
        title="Ablations: the mean metric with nodes ablated, and with as many others",
        columns=("name", "ablated", "metric", "right answer preferred"),
        rows=rows,
        numbers=(2, 3),
    )


def _reruns(reruns: Mapping[str, Mapping[str, Any]]) -> ReportTable:
    rows = []
    for name, record in reruns.items():
        said = "; ".join(map(str, record.get("edit") or ()))
        prompts = record.get("prompts") or {}
        found = [prompts.get(key) or {} for key in ("before", "after", "change")]
        figures = [spanned(f.get("value"), f.get("interval")) for f in found]
        rows.append([readable(name), readable(said), *figures])
    return ReportTable(
        title="Edits rerun beside the run: the mean metric, 95 % intervals",
        columns=("name", "edit", "before", "after", "change"),
        rows=rows,
        numbers=(2, 3, 4),
    )


def spanned(value: float | None, interval: Sequence[float | None] | None) -> str:
    if value is None:
        return "–"
    ends = [end for end in interval or () if end is not None]
    if len(ends) < 2 or ends[0] == value == ends[1]:
        return number(value)
    return f"{number(value)} ({number(ends[0])} to {number(ends[1])})"


def number(value: float | None) -> str:
    """Two decimals, three of small numbers, a minus sign, a dash for none."""
    if value is None:
        return "–"
    text = f"{value:.3f}" if 0.005 <= abs(value) < 0.1 else f"{value:.2f}"
    return ("0.00" if float(text) == 0 else text).replace("-", "−")


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)
