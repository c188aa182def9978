"""What the head of a page says: the prompt with what differs in its pair, the task, the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

from circuits.render.words import pair_name, readable, shortened

LONGEST = 48
"Tokens of a prompt that are shown whole."
NEAR, LAST = 6, 8
"Tokens of a longer one that are kept around what differs, and at its end."
IN_TITLE = 56
"Cells of a prompt in the title."
GAP = " … "


@dataclass(frozen=True, kw_only=True)
class Side:
    """One prompt of a pair as stretches of text, each with whether it differs from the other's."""

    name: str
    text: tuple[tuple[str, bool], ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The first prompt of a set, one side or two, and how many prompts more there are."""

    sides: tuple[Side, ...]
    more: int


def title_of(meta: Mapping[str, Any]) -> str:
    """What tells two tabs apart: the task, or else the prompt, and the model."""
    parts = [meta.get("title") or meta.get("task") or _prompt(meta), model_name(meta)]
    return " · ".join(str(part) for part in parts if part) or "Feature circuit"


def model_name(meta: Mapping[str, Any]) -> Any:
    """What the graph calls its model, None where it does not say."""
    model = meta.get("model")
    return model.get("name") if isinstance(model, Mapping) else model


def heading(meta: Mapping[str, Any]) -> Heading | None:
    """The first prompt that a graph is of; None where the graph does not hold it."""
    example = meta.get("example")
    if not example:
        return None
    clean, patch = example["clean"], example.get("patch")
    differs = [patch is not None and a != b for a, b in zip_longest(clean, patch or clean)]
    kept = _kept(differs)
    sides = [_side("clean" if patch else "prompt", clean, differs, kept, example["answer"])]
    if patch:
        sides.append(_side("patch", patch, differs, kept, example["wrong"]))
    return Heading(sides=tuple(sides), more=int(meta.get("n_prompts") or 1) - 1)


def _side(
    name: str,
    tokens: Sequence[str],
    differs: Sequence[bool],
    kept: Sequence[bool],
    answer: Sequence[str],
) -> Side:
    """Neighbouring tokens in one stretch, so that scripts which join letters are left whole."""
    marked = zip(tokens, differs, kept, strict=False)
    stretches = []
    for (differ, keep), members in groupby(marked, key=lambda m: m[1:]):
        text = "".join(readable(str(token)) for token, _, _ in members) if keep else GAP
        if differ and keep and text.startswith(" "):
            stretches.append((" ", False))
            text = text[1:]
        stretches.append((text, bool(differ and keep)))
    return Side(name=name, text=tuple(stretches), answer=pair_name(answer, ()))


def _kept(differs: Sequence[bool]) -> list[bool]:
    """Which tokens of a long prompt are shown: its beginning, its end, and around what differs."""
    n = len(differs)
    if n <= LONGEST:
        return [True] * n
    near = {j for i, d in enumerate(differs) if d for j in range(i - NEAR, i + NEAR + 1)}
    end = LAST if any(differs) else LONGEST - NEAR
    return [i in near or i < NEAR or i >= n - end for i in range(n)]


def _prompt(meta: Mapping[str, Any]) -> str | None:
    found = heading(meta)
    if found is None:
        return None
    side = found.sides[0]
    text = shortened("".join(text for text, _ in side.text).strip(), IN_TITLE)
    return f"{text} → {side.answer}" if side.answer else text
