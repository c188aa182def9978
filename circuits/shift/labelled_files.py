"""Labelled texts of a file, cut into the four sets of `ShiftData`."""

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from circuits.shift.generate import Sets
from circuits.shift.labelled import LabelledText, ShiftData
from circuits.shift.labelled_rows import LabelledRow, LabelledRows, read_rows
from circuits.tasks.names import MEN, WOMEN
from circuits.tasks.words import entries
from hooked_qwen.bundled.holdout import shares

GENDERS = ({"female", "male"}, {"f", "m"}, {"woman", "man"}, {"women", "men"}, {"she", "he"})
GENDERED = {
    "names": WOMEN + MEN,
    "pronouns": entries("she he her him hers his herself himself"),
    "titles": entries("Mrs Ms Miss Mr Sir Lady Lord Madam"),
    "relations": entries("""
        mother father mum mom dad wife husband daughter son sister brother grandmother grandfather
        aunt uncle niece nephew widow widower bride mothers fathers wives husbands daughters sons
        sisters brothers
        """),
    "nouns": entries("""
        woman man women men girl boy girls boys lady gentleman ladies gentlemen female male females
        males actress waitress businesswoman businessman chairwoman chairman spokeswoman spokesman
        """),
}
"The words that tell a gender in English, for files whose spurious classes are the two genders."
N = 400
SHOWN = 12
TextsByGroup = Mapping[tuple[str, str], list[str]]
"The texts of each label and spurious class."


def labelled_file(
    path: Path,
    *,
    text: str | None,
    label: str | None,
    spurious: str | None,
    classes: Sequence[str] | None,
    n: int | None,
    seed: int,
) -> ShiftData:
    """The texts of a file, split by `seed`.

    No `classes` takes the two most frequent ones, no `n` up to 400 texts a set. Spurious classes
    are put in the order in which label and spurious class agree more often than not.
    """
    read = read_rows(path, text=text, label=label, spurious=spurious)
    notes = list(read.notes)
    labels = _two_labels(read, classes, notes)
    ways = _two_spurious(read, labels, notes)
    rng = random.Random(zlib.crc32(f"{read.label} {labels} {read.spurious} {seed}".encode()))
    texts = _grouped(read.rows, rng)
    is_gender = {way.lower() for way in ways} in GENDERS
    return ShiftData(
        name=path.name,
        label=read.label,
        labels=labels,
        spurious=read.spurious,
        spurious_labels=ways,
        **_split(texts, labels, ways, n, rng, notes),
        words=tuple(GENDERED.values()) if is_gender else (),
        cues=tuple(GENDERED) if is_gender else (),
        notes=tuple(notes),
    )


def _two_labels(
    read: LabelledRows, classes: Sequence[str] | None, notes: list[str]
) -> tuple[str, str]:
    counts = Counter(row.label for row in read.rows)
    told = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(SHOWN))
    told += ", ..." if len(counts) > SHOWN else ""
    if classes is None:
        if len(counts) < 2:
            raise ValueError(
                f"the field {read.label!r} holds one class, and two are told apart: {told}"
            )
        (first, _), (second, _), *_ = counts.most_common()
        notes.append(f"the two most frequent of {len(counts)} classes: {first}, {second}")
        return first, second
    if len(classes) != 2 or len(set(classes)) != 2 or set(classes) - set(counts):
        raise ValueError(
            f"cannot tell apart {' and '.join(map(repr, classes))}: "
            f"write two classes of {read.label!r}: {told}"
        )
    return classes[0], classes[1]


def _two_spurious(read: LabelledRows, labels: tuple[str, str], notes: list[str]) -> tuple[str, str]:
    """The two spurious classes, so ordered that the first goes with the first label."""
    ways = sorted({row.spurious for row in read.rows})
    if len(ways) != 2:
        told = ", ".join(ways[:SHOWN])
        raise ValueError(
            f"the field {read.spurious!r} holds {len(ways)} classes, and a spurious signal has "
            f"two: {told}; leave the rows of the others out of the file"
        )
    counts = Counter((row.label, row.spurious) for row in read.rows)
    agree, cross = (counts[labels[0], ways[i]] * counts[labels[1], ways[1 - i]] for i in range(2))
    first, second = ways if agree >= cross else ways[::-1]
    notes.append(f"ambiguous texts: {labels[0]} with {first}, {labels[1]} with {second}")
    return first, second


def _grouped(rows: Sequence[LabelledRow], rng: random.Random) -> TextsByGroup:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row.label, row.spurious].append(row.text)
    for key in sorted(groups):
        rng.shuffle(groups[key])
    return groups


def _split(
    groups: TextsByGroup,
    labels: tuple[str, str],
    ways: tuple[str, str],
    n: int | None,
    rng: random.Random,
    notes: list[str],
) -> Sets:
    """The four sets; texts of the groups that a set was cut from are in no other."""
    left = {
        (i, j): list(groups.get((labels[i], ways[j]), ())) for i, j in product(range(2), repeat=2)
    }
    each, agreeing = _sizes({key: len(texts) for key, texts in left.items()}, labels, ways, n)
    if n is None and 4 * each < N:
        notes.append(f"{4 * each} balanced texts are all there are, {2 * agreeing} ambiguous ones")
    taken = {
        name: [LabelledText(text, i, j) for i, j in keys for text in _take(left[i, j], size)]
        for name, keys, size in (
            ("balanced", sorted(left), each),
            ("balanced_train", sorted(left), each),
            ("ambiguous", ((0, 0), (1, 1)), agreeing),
        )
    }
    taken["spurious_only"] = _of_others(groups, labels, ways, n or N)
    for texts in taken.values():
        rng.shuffle(texts)
    if not taken["spurious_only"]:
        notes.append("no other class has texts of both spurious classes: spurious_only is empty")
    return Sets(**{name: tuple(texts) for name, texts in taken.items()})


def _sizes(
    counts: Mapping[tuple[int, int], int],
    labels: tuple[str, str],
    ways: tuple[str, str],
    n: int | None,
) -> tuple[int, int]:
    """Texts of one group in a balanced set, and in the ambiguous one.

    A group where label and spurious class differ is cut in two, one where they agree in four.
    """
    most = min(*(2 * counts[i, 1 - i] for i in range(2)), *(counts[i, i] for i in range(2)))
    told = ", ".join(f"{labels[i]} {ways[j]} {counts[i, j]:,}" for i, j in sorted(counts))
    if most < 4:
        raise ValueError(
            "four groups are needed, of 4 texts where label and spurious class agree and 2 where "
            f"they differ; there are {told}: name other classes"
        )
    if n is None:
        each = min(N // 4, most // 4)
        return each, min(N // 2, min(counts[i, i] for i in range(2)) - 2 * each)
    if n < 4 or n % 4:
        raise ValueError(f"{n} texts cannot be four groups of one size: give a multiple of 4")
    if n > most:
        raise ValueError(f"{n} texts a set were asked for; {told} give {most // 4 * 4} at most")
    return n // 4, n // 2


def _take(texts: list[str], size: int) -> list[str]:
    """The last `size` texts, which leave the list."""
    taken = texts[len(texts) - size :]
    del texts[len(texts) - size :]
    return taken


def _of_others(
    groups: TextsByGroup, labels: tuple[str, str], ways: tuple[str, str], n: int
) -> list[LabelledText]:
    """Up to `n` texts of other classes, of each as many of one spurious class as of the other."""
    others = sorted({label for label, _ in groups} - set(labels))
    sizes = [min(len(groups.get((other, way), ())) for way in ways) for other in others]
    return [
        LabelledText(text, 0, j)
        for other, share in zip(others, shares(sizes, min(n // 2, sum(sizes))), strict=True)
        for j, way in enumerate(ways)
        for text in groups.get((other, way), [])[:share]
    ]
