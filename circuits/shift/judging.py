"""Which features of a probe's circuit are cut: by a rule, by a file, or by a person.

The automatic rule compares how much of each probe goes through a feature. With l_i the feature's
effect on the probe of the label, and s_i that on a probe of the spurious signal, trained on texts
of other classes,

    cut feature i   if   |s_i| / sum over features of |s|  >  |l_i| / sum over features of |l|
                    and  s_i and l_i have the same sign

Effects are those of moving the feature to zero, summed over positions, mean over texts. Where
both signals agree, class 1 of one comes with class 1 of the other: a feature through which the
label's probe goes by the spurious signal moves both probes the same way.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from circuits.attribution.node_effects import NodeEffects
from circuits.graph import rounded
from hooked_qwen.files import write_text_atomically
from hooked_qwen.nodes import Node

SCHEMA = "judgements/1"
JudgedBy = Literal["rule", "file", "person"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One feature of the circuit, and what becomes of it."""

    node: Node
    label: float
    "effect on the probe of the label, in logits"
    spurious: float | None
    "effect on the probe of the spurious signal; None where there is none"
    cut: bool | None = None
    "None: not judged yet"
    reason: str = ""
    by: JudgedBy = "rule"

    def record(self) -> dict[str, Any]:
        """As files hold it."""
        found = asdict(self) | {"node": str(self.node), "label": rounded(self.label)}
        if self.spurious is not None:
            found["spurious"] = rounded(self.spurious)
        return found


def circuit_features(label: NodeEffects, spurious: NodeEffects | None, n: int) -> list[Judged]:
    """The `n` features with the largest effect on the label's probe, none of them judged."""
    on_spurious = {} if spurious is None else dict(spurious.features())
    return [
        Judged(
            node=node,
            label=effect,
            spurious=None if spurious is None else on_spurious.get(node, 0.0),
        )
        for node, effect in label.features()[:n]
    ]


def by_rule(
    features: Sequence[Judged], label: NodeEffects, spurious: NodeEffects | None
) -> list[Judged]:
    """The features judged by the automatic rule.

    Raises `ValueError` where there is no probe of the spurious signal.
    """
    if spurious is None:
        raise ValueError(
            "the automatic rule needs texts that tell the spurious signal without the label: the "
            "data has none of other classes; judge by a file (--judgements) or yourself (--ask)"
        )
    whole = float(label.features().effect.abs().sum())
    whole_spurious = float(spurious.features().effect.abs().sum())
    found = []
    for feature in features:
        assert feature.spurious is not None
        own = abs(feature.label) / whole
        other = abs(feature.spurious) / whole_spurious
        same_way = feature.label * feature.spurious > 0
        signs = "same sign" if same_way else "not the same sign"
        reason = f"{other:.2%} of the spurious probe's effect, {own:.2%} of the label's, {signs}"
        found.append(replace(feature, cut=same_way and other > own, reason=reason, by="rule"))
    return found


def save_judgements(features: Sequence[Judged], path: Path) -> None:
    """Write what was judged, whole or not at all."""
    judged = [f.record() for f in features if f.cut is not None]
    text = json.dumps({"schema": SCHEMA, "features": judged}, indent=1) + "\n"
    write_text_atomically(path, text)


def read_judgements(path: Path) -> dict[Node, Mapping[str, Any]]:
    """What a file says of features: {"features": [{"node": ..., "cut": true, "reason": ...}]}.

    Raises `ValueError` naming the file and what is wrong in it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = record["features"]
        found = {Node.parse(entry["node"]): entry for entry in entries}
        wrong = next((e for e in entries if not isinstance(e["cut"], bool)), None)
    except FileNotFoundError:
        raise ValueError(f"there are no judgements at {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} holds no judgements ({error}): expected {{"features": [{{"node": '
            '"resid_post.2/7", "cut": true, "reason": "..."}, ...]}'
        ) from None
    if wrong is not None:
        raise ValueError(f'{path}: "cut" of {wrong["node"]} is {wrong["cut"]!r}, not true or false')
    return found


def by_file(
    features: Sequence[Judged], said: Mapping[Node, Mapping[str, Any]], by: JudgedBy = "file"
) -> list[Judged]:
    """The features with what is said of them; those of which nothing is said stay unjudged."""
    return [
        replace(f, cut=said[f.node]["cut"], reason=str(said[f.node].get("reason", "")), by=by)
        if f.node in said
        else f
        for f in features
    ]


def cut_nodes(features: Sequence[Judged]) -> tuple[Node, ...]:
    """The features that are cut."""
    return tuple(f.node for f in features if f.cut)
