"""Records of a file: JSON Lines, one JSON list of objects, CSV or Parquet.

Each comes with where it stands, for messages. All but Parquet may end in .gz or .zst besides.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from hooked_qwen.compression import content_of, suffix_of

LocatedRecord = tuple[str, Mapping[str, Any]]
"Where a record stands, and its fields."


def read_records(path: Path) -> Iterator[LocatedRecord]:
    """The records of a file; what is neither .csv nor .parquet is read as JSON.

    Raises `ValueError` naming file, line and what is wrong with it.
    """
    match suffix_of(path):
        case ".parquet":
            yield from _parquet_records(path)
        case ".csv":
            yield from _csv_records(_decoded(path), path)
        case _:
            yield from _json_records(_decoded(path), path)


def _decoded(path: Path) -> str:
    """The file's text: UTF-8, or what its byte order mark says."""
    content = content_of(path)
    marks = {
        codecs.BOM_UTF8: "utf-8-sig",
        codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not {encoding.upper()}; "
            "save the file as UTF-8 (it may be in Latin-1 or a code page of Windows)"
        ) from None
    if "\0" in text:
        raise ValueError(
            f"{path} holds zero bytes: it may be UTF-16 without a byte order mark; save it as UTF-8"
        )
    return text


def _json_records(text: str, path: Path) -> Iterator[LocatedRecord]:
    if text.lstrip().startswith("["):
        yield from _json_list(text, path)
        return
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error}); expected an object a line") from None
        yield where, _object(record, where)


def _json_list(text: str, path: Path) -> Iterator[LocatedRecord]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: neither a JSON list nor an object a line ({error})") from None
    for number, record in enumerate(records, 1):
        where = f"{path}, entry {number}"
        yield where, _object(record, where)


def _object(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object")
    return record


def _csv_records(text: str, path: Path) -> Iterator[LocatedRecord]:
    """Lines of a CSV; an empty cell is a field that is null."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for record in reader:
            where = f"{path}, line {reader.line_num}"
            if None in record:
                raise ValueError(f"{where}: more cells than the first line has names")
            yield where, {name: cell or None for name, cell in record.items()}
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _parquet_records(path: Path) -> Iterator[LocatedRecord]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            rows = chain.from_iterable(batch.to_pylist() for batch in table.iter_batches())
            for number, record in enumerate(rows, 1):
                yield f"{path}, row {number}", record
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"cannot read {path} as Parquet: {reason}") from None
