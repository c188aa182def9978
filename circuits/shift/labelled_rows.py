"""The rows of a file of labelled texts: which fields count, and what stands in them.

The fields of Bias in Bios (De-Arteaga et al. 2019, arXiv:1901.09451) are known by name, as are
the numbers that stand for professions and genders in the copy of Ravfogel et al. 2020,
arXiv:2004.07667.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.tasks.words import entries
from hooked_qwen.records import read_records

TEXT = ("hard_text", "text", "bio", "raw", "body", "content", "sentence", "review", "comment")
"Fields that hold the text; `hard_text` is a biography without the sentence that says the job."
LABEL = ("profession", "p", "title", "label")
SPURIOUS = ("gender", "g", "sex", "spurious")
PROFESSIONS = entries("""
    accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker
    interior_designer journalist model nurse painter paralegal pastor personal_trainer photographer
    physician poet professor psychologist rapper software_engineer surgeon teacher yoga_teacher
    """)
"What the published numbers of professions stand for, from 0."
GENDERS = ("male", "female")
PUBLISHED = {"profession": PROFESSIONS, "gender": GENDERS}


@dataclass(frozen=True)
class LabelledRow:
    """A text with the values of its two fields."""

    text: str
    label: str
    spurious: str


@dataclass(frozen=True)
class LabelledRows:
    """The rows of a file, no text twice, and the names of the two fields."""

    rows: list[LabelledRow]
    label: str
    spurious: str
    notes: list[str]
    "what was left out"


def read_rows(
    path: Path, *, text: str | None, label: str | None, spurious: str | None
) -> LabelledRows:
    """The rows that have all three fields; a field that is not named is found by its usual names.

    Raises `ValueError` naming file, line and what is wrong with it.
    """
    if not path.is_file():
        raise ValueError(f"there are no labelled texts at {path}: expected a file")
    rows: dict[str, LabelledRow] = {}
    left_out: Counter[str] = Counter()
    fields: tuple[str, str, str] | None = None
    is_published = True
    for where, record in read_records(path):
        if fields is None:
            fields = _fields(record, where, text, label, spurious)
            is_published = {"hard_text", *PUBLISHED} <= set(record)
        row = _row(record, where, fields, PUBLISHED if is_published else {})
        if row is None:
            left_out["with an empty field"] += 1
        elif rows.setdefault(row.text, row) is not row:
            left_out["whose text came before"] += 1
    if fields is None or not rows:
        raise ValueError(f"{path} holds no labelled texts")
    notes = [f"left out: {count:,} rows {why}" for why, count in left_out.items()]
    return LabelledRows(list(rows.values()), *fields[1:], notes)


def _fields(
    record: Mapping[str, Any], where: str, text: str | None, label: str | None, spurious: str | None
) -> tuple[str, str, str]:
    """The fields that hold the text, the label and the spurious class."""
    found = (
        _field(record, where, "text", text, TEXT),
        _field(record, where, "label", label, LABEL),
        _field(record, where, "spurious", spurious, SPURIOUS),
    )
    if len(set(found)) < len(found):
        raise ValueError(
            f"{where}: text, label and spurious class are three fields, not {', '.join(found)}"
        )
    return found


def _field(
    record: Mapping[str, Any], where: str, what: str, name: str | None, usual: tuple[str, ...]
) -> str:
    wanted = usual if name is None else (name,)
    for field in wanted:
        if field in record:
            return field
    raise ValueError(
        f"{where}: no field {' or '.join(map(repr, wanted))}; the fields are "
        f"{', '.join(map(repr, record)) or 'none'}: say which one is {what}"
    )


def _row(
    record: Mapping[str, Any],
    where: str,
    fields: tuple[str, str, str],
    numbered: Mapping[str, tuple[str, ...]],
) -> LabelledRow | None:
    """One row, None where a field is empty."""
    for field in fields:
        if field not in record:
            raise ValueError(f"{where}: no field {field!r}, which the first record has")
    text, label, spurious = (record[field] for field in fields)
    if not isinstance(text, str | None):
        raise ValueError(f"{where}: the field {fields[0]!r} holds no text but {text!r:.50}")
    values = [
        _value(value, where, field, numbered.get(field, ()))
        for field, value in ((fields[1], label), (fields[2], spurious))
    ]
    if not (text and text.strip() and all(values)):
        return None
    return LabelledRow(text, *values)


def _value(value: Any, where: str, field: str, numbered: tuple[str, ...]) -> str:
    """A class as text: its name where it is a published number, nothing where it is missing."""
    if value is None or value != value:  # what a table writes for nothing is NaN, no number
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"{where}: the field {field!r} holds no class but {value!r:.50}")
    told = str(value).strip()
    if numbered and told.isdecimal():
        if int(told) >= len(numbered):
            raise ValueError(
                f"{where}: no {field} has the number {told}: "
                f"the published ones are 0 to {len(numbered) - 1}"
            )
        return numbered[int(told)]
    return told
