"""Records come the same from every format, with where each stands."""

import csv
import gzip
import json

import pandas as pd
import pytest

from hooked_qwen.records import read_records

RECORDS = [{"a": "x, y", "b": "1"}, {"a": "ü\nz", "b": None}]
LINES = "".join(json.dumps(record) + "\n\n" for record in RECORDS).encode()


def write_csv(path):
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, ["a", "b"])
        writer.writeheader()
        writer.writerows(RECORDS)


WRITERS = {
    "r.jsonl": lambda path: path.write_bytes(LINES),
    "r.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "r.json": lambda path: path.write_text(json.dumps(RECORDS)),
    "r.csv": write_csv,
    "r.parquet": lambda path: pd.DataFrame(RECORDS).to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records_and_says_where_they_stand(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    found = list(read_records(path))
    assert [dict(record) for _, record in found] == RECORDS
    first, second = (where for where, _ in found)
    assert first.startswith(str(path))
    assert first != second


def test_a_zstd_file_is_read(tmp_path):
    import pyarrow

    path = tmp_path / "r.jsonl.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as out:
        out.write(LINES)
    assert [dict(record) for _, record in read_records(path)] == RECORDS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", b'{"a": 1}\n[2]\n', "line 2: expected a JSON object"),
        ("r.json", b"[1", "neither a JSON list nor an object a line"),
        ("r.jsonl", b'{"a": "\xfc"}', "line 1: byte 0xfc is not UTF-8"),
        ("r.csv.gz", b"a,b", "cannot read .*r.csv.gz"),
        ("r.parquet", b"a,b", "cannot read .*r.parquet as Parquet"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        list(read_records(tmp_path / name))
    assert "\n" not in str(refused.value)
