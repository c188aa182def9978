"""Texts to train and judge on: files and folders of them, plain or compressed, and data sets.

    FILE or FOLDER              .txt .md .py: one text a file; .jsonl, .parquet: one a line or row
    FILE:FIELD                  the field or column that holds the text, where it is not `text`
    hf:ORG/NAME[/CONFIG][@REVISION][:FIELD]    a data set on the Hugging Face hub, streamed

Standard input, `-` or `-:FIELD`, is lines of JSON, for what goes through its texts once.

Files may end in .gz or .zst besides. Texts come in the order of the files' names.
"""

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

from hooked_qwen.bundled import language
from hooked_qwen.compression import COMPRESSED, UNREADABLE, content_of, opened, suffix_of
from hooked_qwen.load import BUNDLED
from hooked_qwen.notices import first_line, notify

WHOLE = (".txt", ".md", ".py")
TABLES = (".jsonl", ".parquet")
FIELD = "text"
HUB = "hf:"
STDIN = "-"
HUB_NAME = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MOST_REPLACED = 1e-3
"Share of characters that may be damaged: beyond it, a file is in another encoding."
ROWS_AT_ONCE = 256
Corpus = Callable[[], Iterator[str]]
"Opens a corpus from its start."


def texts_of(sources: Sequence[str | Path], *, seed: int = 0) -> Corpus:
    """A corpus that can be opened again, or with `bundled` alone our English, drawn by `seed`.

    Raises `ValueError` where there is no text in it.
    """
    if [str(s) for s in sources] == [BUNDLED]:
        return lambda: language.documents(seed=1 + seed)
    if next(read_texts(sources), None) is None:
        raise ValueError(f"no text in {', '.join(map(str, sources))}")
    return lambda: read_texts(sources)


def read_once(sources: Sequence[str | Path]) -> Iterator[str]:
    """The texts of `texts_of`, or with `-` alone those on standard input, each as it comes.

    Raises `ValueError` as `read_texts` does.
    """
    name, _, field = str(sources[0]).partition(":") if len(sources) == 1 else ("", "", "")
    if name != STDIN:
        yield from texts_of(sources)()
        return
    for number, line in _numbered(cast(io.BufferedIOBase, sys.stdin.buffer)):
        yield _field_of(line, field or FIELD, f"standard input, line {number}")


def first_texts(sources: Sequence[str | Path], count: int) -> list[str]:
    """The first `count` texts of `sources` that are not blank."""
    return list(islice((text for text in texts_of(sources)() if text.strip()), count))


def read_texts(sources: Iterable[str | Path]) -> Iterator[str]:
    """The texts of all `sources`, one after another.

    Raises `ValueError` naming file, and line or field, for what is not there, cannot be read as
    text, or is not in UTF-8 or (with a byte-order mark) UTF-16. A few damaged characters in a
    file, and files in a folder that are not read, are a notice.
    """
    for source in sources:
        if str(source).startswith(HUB):
            yield from _data_set_texts(str(source).removeprefix(HUB))
            continue
        path, field = _path_and_field(source)
        for file in [path] if path.is_file() else _files_under(path):
            yield from _file_texts(file, field)


def _path_and_field(source: str | Path) -> tuple[Path, str]:
    path = Path(source).expanduser()
    if path.exists():
        return path, FIELD
    before, colon, field = str(source).rpartition(":")
    if colon and before and field and Path(before).expanduser().exists():
        return Path(before).expanduser(), field
    once = ": standard input can be read only once, and alone; save it to a file"
    raise ValueError(f"there is no text at {source}{once if str(source) == STDIN else ''}")


def _files_under(folder: Path) -> list[Path]:
    """Files that can be read; beside tables, a readme is about them and is no text."""
    found = [p for p in folder.rglob("*") if p.is_file() and not _is_hidden(p, folder)]
    known = sorted(p for p in found if suffix_of(p) in (*WHOLE, *TABLES))
    if any(suffix_of(p) in TABLES for p in known):
        known = [p for p in known if p.stem.lower() not in ("readme", "license")]
    if not known:
        raise ValueError(f"no text in {folder}: expected files ending in {_suffixes()}")
    others = Counter(p.suffix or p.name for p in found if suffix_of(p) not in (*WHOLE, *TABLES))
    if others:
        told = ", ".join(f"{suffix} ({n})" for suffix, n in sorted(others.items()))
        notify(f"files in {folder} that are not read as text: {told}")
    return known


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _suffixes() -> str:
    return f"{', '.join((*WHOLE, *TABLES))}, or these with {' or '.join(COMPRESSED)}"


def _file_texts(file: Path, field: str) -> Iterator[str]:
    match suffix_of(file):
        case ".jsonl":
            return _jsonl_texts(file, field)
        case ".parquet":
            return _parquet_texts(file, field)
        case suffix if suffix in WHOLE:
            return iter([read_text(file)])
        case _:
            raise ValueError(f"cannot read {file} as text: expected {_suffixes()}")


def read_text(file: Path) -> str:
    """A text file, compressed or not, in UTF-8 or (with a byte-order mark) UTF-16.

    Raises `ValueError` where it is in another encoding; a few damaged characters are a notice.
    """
    content = content_of(file)
    encoding = next((e for bom, e in BOMS.items() if content.startswith(bom)), "utf-8")
    text = content.decode(encoding, errors="replace")
    if "\0" in text:
        raise ValueError(
            f"{file} holds zero bytes: it is no text, or in UTF-16 without a byte-order mark; "
            "save it as UTF-8"
        )
    damaged = text.count("\ufffd") - content.count("\ufffd".encode(encoding))
    if damaged > max(1, MOST_REPLACED * len(text)):
        raise ValueError(
            f"{file} is not in UTF-8: {damaged:,} of {len(text):,} characters cannot be read; "
            "convert it, for example with iconv -f latin1 -t utf-8"
        )
    if damaged > 0:
        places = "place" if damaged == 1 else "places"
        notify(f"{file} is not in UTF-8 at {damaged} {places}, read as U+FFFD")
    return text


def _jsonl_texts(file: Path, field: str) -> Iterator[str]:
    for number, line in json_lines(file):
        yield _field_of(line, field, f"{file}, line {number}")


def json_lines(file: Path) -> Iterator[tuple[int, bytes | str]]:
    """Lines of a file, compressed or not, that are not empty, with their numbers from 1.

    Raises `ValueError` where the file cannot be read.
    """
    try:
        with opened(file) as stream:
            yield from _numbered(stream)
    except UNREADABLE as error:
        raise ValueError(f"cannot read {file}: {error}") from None


def _numbered(stream: io.BufferedIOBase) -> Iterator[tuple[int, bytes | str]]:
    return ((n, line) for n, line in enumerate(_lines(stream), 1) if line.strip())


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes | str]:
    first = stream.readline()
    encoding = next((e for bom, e in BOMS.items() if first.startswith(bom)), None)
    if encoding == "utf-16":
        yield from (first + stream.read()).decode(encoding, errors="replace").split("\n")
        return
    yield first.removeprefix(b"\xef\xbb\xbf")
    yield from stream


def _field_of(line: bytes | str, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f'{where}: expected a JSON object with a "{field}" field, in UTF-8')
    return _text_in(record, field, where)


def _text_in(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise _no_field(record, field, where)
    if not isinstance(record[field], str):
        raise ValueError(f"{where}: the field {field!r} holds no text but {record[field]!r:.50}")
    return record[field]


def _no_field(known: Iterable[str], field: str, where: str) -> ValueError:
    return ValueError(
        f"{where}: there is no field {field!r}, but {', '.join(map(repr, known))}: "
        "write which one holds the text behind a colon, such as FILE:body"
    )


def _parquet_texts(file: Path, field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise _no_field(table.schema_arrow.names, field, str(file))
            for batch in table.iter_batches(columns=[field], batch_size=ROWS_AT_ONCE):
                rows = batch.column(0).to_pylist()
                # An empty cell is no text.
                yield from (_text_in({field: x}, field, str(file)) for x in rows if x is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {file} as Parquet: {first_line(error)}") from None


def _data_set_texts(source: str) -> Iterator[str]:
    """A data set as `datasets` streams it: nothing is downloaded but what is read."""
    name, config, revision, field = _parsed_data_set(source)
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError:
        raise ValueError(
            f"{HUB}{source} is read through the package datasets, which is not installed: "
            "pip install 'qwen-circuits[datasets]'"
        ) from None
    disable_progress_bars()
    try:
        splits = load_dataset(name, config, revision=revision, streaming=True)
        split = "train" if "train" in splits else next(iter(splits))
        rows = splits[split]
        first = next(iter(rows), None)
    except Exception as error:  # of as many kinds as there are loaders and network failures
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        hint = "; HF_HUB_OFFLINE is set, so nothing is downloaded" if offline else ""
        raise ValueError(
            f"cannot read the data set {HUB}{source}: {first_line(error)}{hint}"
        ) from None
    if split != "train":
        notify(f"{HUB}{source} has no split 'train': its {split!r} is read")
    if first is not None and field not in first:
        raise _no_field(first, field, f"{HUB}{source}")
    for row in rows:
        if row[field] is not None:
            yield _text_in(row, field, f"{HUB}{source}")


def _parsed_data_set(source: str) -> tuple[str, str | None, str | None, str]:
    if Path(source).exists():
        return source, None, None, FIELD
    before, colon, field = source.rpartition(":")
    name, field = (before, field) if colon else (source, FIELD)
    if Path(name).exists():
        return name, None, None, field
    named = HUB_NAME.fullmatch(name)
    if named is None:
        raise ValueError(
            f"{HUB}{source} names no data set: write hf:org/name, "
            "hf:org/name/config@revision:field with what is needed of it"
        )
    return named["name"], named["config"], named["revision"], field
