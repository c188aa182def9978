"""What was done to a circuit, short enough for a badge, which says `x0: 4.98 → 0.81`.

The graph that an ablation or an edit leaves says at each node what was done to it, the record
beside it what became of the metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ABLATED = {"zero": "×0", "mean": "= mean", "patch": "= patch"}
SEVERAL = "edited"
"What a badge says where nodes had different things done to them."


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What was done, and the mean of the metric without and with it."""

    what: str
    before: float
    after: float

    @property
    def said(self) -> str:
        ends = f"{self.before:.2f} → {self.after:.2f}".replace("-", "\N{MINUS SIGN}")
        return f"{self.what}: {ends}"


def intervention_of(record: Mapping[str, Any]) -> Intervention | None:
    """Of the record of `circuits ablate`, or of `circuits edit apply`; None where no metric is."""
    if "before" in record:
        what = str(record.get("to") or SEVERAL)
        return Intervention(
            what=ABLATED.get(what, what), before=record["before"], after=record["after"]
        )
    prompts = record.get("prompts")
    if not prompts:
        return None
    before, after = (float(prompts[end]["value"]) for end in ("before", "after"))
    shorts = {str(row.get("short") or SEVERAL) for row in record.get("operations") or ()}
    return Intervention(
        what=shorts.pop() if len(shorts) == 1 else SEVERAL, before=before, after=after
    )


def done_to(data: Mapping[str, Any]) -> str:
    """What was done to a node, by its attributes; empty where nothing was."""
    if said := data.get("done"):
        return str(said)
    ablated = str(data.get("ablated") or "")
    return ABLATED.get(ablated, ablated)
