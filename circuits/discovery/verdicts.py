"""What a reader should be told in plain words beside a graph's numbers.

Each function gives sentences, none where there is nothing to say. They go into `meta.notices` of a
graph, to the terminal and to the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuits.graph import rounded
from hooked_qwen.percents import percent

LEAST_ACCURACY = 0.6
"Share of prompts with the right answer preferred under which a model does not do a task."
LEAST_MOVE = 0.1
"Share of a metric's usual size that a patch, or ablating everything, must move it by."
LEAST_DIVERGENCE = 0.01
"The same for a divergence from the clean run, in nats."
ANSWERS = ("logit-difference", "log-probability", "probability-difference", "kl")
"Metrics of the next token."
REASONS = {
    "below_threshold": "{n} below the threshold",
    "little_influence": "{n} with too little influence",
    "no_path_to_output": "{n} without a path to the output",
    "no_path_from_tokens": "{n} with none from the tokens",
    "no_room": "{n} whose path would take more nodes than are left",
    "eliminated": "{n} not needed",
}


@dataclass(frozen=True)
class NodeCounts:
    """How many nodes a graph was asked for and has, and where the others went."""

    asked: int
    changed: int
    "features and errors whose clean and patch values differ"
    considered: int
    "the strongest of them, which the graph was chosen from"
    kept: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    "how many of those considered, by `REASONS`"
    unconnected: int = 0
    "nodes of the graph without a path from the tokens to the output"
    influence: tuple[float, float] | None = None
    "the share of the influence that was asked for, and the share that was reached"
    faithfulness: tuple[float, float] | None = None
    "the same of faithfulness"

    def record(self) -> dict[str, Any]:
        """As `meta` of `graph.json` holds it."""
        return {
            "nodes_that_move": self.changed,
            "nodes_considered": self.considered,
            "nodes_kept": self.kept,
            "nodes_unconnected": self.unconnected,
            "left_out": dict(self.left_out),
            "influence_reached": None if self.influence is None else rounded(self.influence[1]),
            "faithfulness_reached": (
                None if self.faithfulness is None else rounded(self.faithfulness[1])
            ),
        }


def of_nodes(kept: NodeCounts) -> list[str]:
    """Why a graph has fewer nodes than were asked for, or nodes that nothing connects."""
    found = []
    if kept.kept < kept.asked:
        found.append(f"{kept.kept:,} of the {kept.asked:,} nodes asked for{_reasons(kept)}")
    if kept.unconnected:
        found.append(
            f"{kept.unconnected:,} of the {kept.kept:,} nodes lie on no path from the tokens to "
            "the output: a graph this small is not connected, ask for more --nodes"
        )
    if kept.influence is not None and kept.influence[1] < kept.influence[0]:
        asked, reached = kept.influence
        found.append(
            f"{reached:.1%} of the influence where {asked:.1%} was asked for: the rest is of nodes "
            "on no path from the tokens to the output that fits; more --nodes may reach it"
        )
    if kept.faithfulness is not None and kept.faithfulness[1] < kept.faithfulness[0]:
        asked, reached = kept.faithfulness
        found.append(
            f"all {kept.kept:,} nodes together have a faithfulness of {reached:z.2f}, where "
            f"{asked:z.2f} was asked for: none was taken away"
        )
    return found


def _reasons(kept: NodeCounts) -> str:
    counts = {why: kept.left_out.get(why, 0) for why in REASONS}
    parts = [REASONS[why].format(n=f"{n:,}") for why, n in counts.items() if n]
    if kept.changed < kept.asked:
        only = f": only {kept.changed:,} have clean and patch values that differ"
        return only + (f", of which {_listed(parts)} are left out" if parts else "")
    return f": of the {kept.considered:,} strongest, {_listed(parts)} are left out" if parts else ""


def of_task(
    metric: str,
    clean: float,
    patch: float | None,
    accuracy: float | None,
    *,
    size: float,
) -> list[str]:
    """Whether the model does what is asked, and whether the patch matters to it.

    `clean` and `patch` are the metric's means, `size` its mean size on the clean prompts.
    """
    found = []
    if accuracy is not None and accuracy < LEAST_ACCURACY and metric in ANSWERS:
        found.append(
            f"the model prefers the right answer on {percent(accuracy)} of the prompts only: it "
            "does not do this task, and a circuit of it means little"
        )
    if patch is None:
        return found
    if metric == "kl":
        if patch < LEAST_DIVERGENCE:
            found.append(f"the patch hardly changes what the model says: {patch:.3f} nats")
    elif abs(patch - clean) <= LEAST_MOVE * size:
        found.append(
            f"the patch hardly changes what is asked: the mean {metric} goes from {clean:z.2f} to "
            f"{patch:z.2f}, so effects are of next to nothing"
        )
    elif metric in ANSWERS and patch > clean:
        found.append(
            f"the patch raises the {metric}, from {clean:z.2f} to {patch:z.2f}: are clean and "
            "patch, or answer and wrong, the wrong way round?"
        )
    return found


def of_verification(record: Mapping[str, Any]) -> list[str]:
    """What the check found: the circuit against chance, and what carries untrained dictionaries."""
    curves = record["curves"]
    full, empty, rows = curves.get("full"), curves.get("empty"), curves["rows"]
    found = []
    if None not in (full, empty) and abs(full - empty) < LEAST_MOVE * max(abs(full), abs(empty)):
        found.append(
            f"ablating every node changes the metric from {full:z.2f} to {empty:z.2f} only: "
            "faithfulness is a share of next to nothing"
        )
    return [
        *found,
        *_against_chance(curves),
        *_untrained(curves["sizes"], rows),
        *_of_scores(record.get("scores")),
    ]


def _against_chance(curves: Mapping[str, Any]) -> list[str]:
    margin = curves.get("margin")
    if not margin:
        return []
    interval = margin["interval"]
    sure = margin["difference"] > 0 if interval is None else interval[0] > 0
    verdict = "more than" if sure else "no more than"
    return [
        f"the {margin['size']:,} strongest nodes keep {margin['circuit']:z.2f} of the metric, "
        f"{verdict} as many random ones ({margin['random nodes']:z.2f})"
    ]


def _untrained(sizes: list[int], rows: Mapping[str, Any]) -> list[str]:
    """Said where untrained dictionaries seem to do better than the suite's."""
    names = ("circuit", "circuit without errors")
    controls = ("untrained dictionaries", "untrained dictionaries, no errors")
    if not {*names, *controls} <= set(rows):
        return []
    (own, bare), (theirs, their_bare) = (
        [rows[name]["faithfulness"] for name in some] for some in (names, controls)
    )
    i = max(range(len(sizes)), key=lambda i: theirs[i] - own[i])
    if theirs[i] <= own[i]:
        return []
    return [
        f"untrained dictionaries keep {theirs[i]:z.2f} at {sizes[i]:,} nodes and the suite's "
        f"{own[i]:z.2f}, because their errors carry it: compare the rows without errors, "
        f"{their_bare[i]:z.2f} and {bare[i]:z.2f}"
    ]


def _of_scores(scores: Mapping[str, Any] | None) -> list[str]:
    """A replacement graph's scores beside those of the control."""
    if scores is None:
        return []
    own, control = scores["graph"], scores["decoders dealt anew"]
    told = []
    for name in ("replacement", "completeness"):
        ends = control["intervals"][name]
        spread = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
        told.append(
            f"{name} score {own[name]:.2f}; {control[name]:.2f}{spread} where what features write "
            "is dealt anew among those of each dictionary"
        )
    return told


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
