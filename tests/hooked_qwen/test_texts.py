"""Texts are read whole and right, or it is said in one line which is not, and where."""

import gzip
import io
import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from hooked_qwen.notices import Notice
from hooked_qwen.texts import read_once, read_texts, texts_of


@pytest.mark.parametrize("suffix", [".txt", ".md", ".py"])
def test_a_text_file_is_one_text(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_text("one\ntwo ñ\n", encoding="utf-8")
    assert list(read_texts([file])) == ["one\ntwo ñ\n"]


def test_bytes_that_are_no_utf8_are_replaced(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.warns(Notice, match=r"a\.txt is not in UTF-8 at 1 place, read as"):
        assert list(read_texts([tmp_path / "a.txt"])) == ["caf\ufffd"]


def test_jsonl_is_a_text_a_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(
        "\n".join([json.dumps({"text": "one", "id": 1}), "", json.dumps({"text": "ñ"})]),
        encoding="utf-8",
    )
    assert list(read_texts([file])) == ["one", "ñ"]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', "3", "null"])
def test_a_bad_jsonl_line_is_named(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "fine"}}\n\n{line}\n')
    texts = read_texts([file])
    assert next(texts) == "fine"
    with pytest.raises(ValueError, match=r'a\.jsonl, line 3: expected a JSON object with a "text"'):
        next(texts)


def test_a_jsonl_text_that_is_no_string_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": 3}')
    with pytest.raises(ValueError, match="line 1"):
        list(read_texts([tmp_path / "a.jsonl"]))


def test_jsonl_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1"):
        list(read_texts([tmp_path / "a.jsonl"]))


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name in ("b.txt", "a/z.md", "c.py", "a/b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "picture.png").write_bytes(b"\x00")
    (tmp_path / "folder.txt").mkdir()
    assert list(read_texts([tmp_path])) == ["a/b/c.txt", "a/z.md", "b.txt", "c.py"]
    assert list(read_texts([tmp_path / "c.py", tmp_path / "a"])) == ["c.py", "a/b/c.txt", "a/z.md"]


def test_a_suffix_that_is_not_text_lists_those_that_are(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read .*a\.pdf as text: expected \.txt, \.md"):
        list(read_texts([tmp_path / "a.pdf"]))


def test_a_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no text in .*: expected files ending in \.txt"):
        list(read_texts([tmp_path]))


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"there is no text at .*nowhere"):
        list(read_texts([tmp_path / "nowhere"]))


class Typed(io.RawIOBase):
    """Lines that come one at a time, as from a pipe."""

    def __init__(self, lines):
        self.lines, self.read = iter(lines), 0

    def readable(self):
        return True

    def readinto(self, room):
        line = next(self.lines, b"")
        self.read += len(line) > 0
        room[: len(line)] = line
        return len(line)


def test_standard_input_is_read_line_by_line_as_it_comes(monkeypatch):
    def given(*lines):
        typed = Typed(lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(typed)))
        return typed

    rows = [b'{"text": "one", "body": "\xe4\xb8\x80"}\n', b"\n", b'{"text": "two", "body": "b"}']
    typed = given(*rows)
    texts = read_once(["-"])
    assert next(texts) == "one"
    assert typed.read == 1
    assert list(texts) == ["two"]
    given(*rows)
    assert list(read_once(["-:body"])) == ["一", "b"]
    given(b"no JSON\n")
    with pytest.raises(ValueError, match="standard input, line 1: expected a JSON object"):
        list(read_once(["-"]))
    with pytest.raises(ValueError, match="no text at -: standard input can be read only once"):
        texts_of(["-"])


def test_what_is_no_standard_input_is_read_once_as_ever(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assert list(read_once([tmp_path / "a.txt", tmp_path])) == ["one", "one"]


ROWS = [{"text": "one", "body": "eins"}, {"text": "日 ñ", "body": "zwei"}]


def save(rows, file):
    """Rows as a table, of the kind that the file's name says."""
    if file.name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.suffix == ".gz":
        content = gzip.compress(content)
    if file.suffix == ".zst":
        half = len(content) // 2
        codec = pyarrow.Codec("zstd")
        # Two frames, as a file has that was appended to.
        content = b"".join(
            codec.compress(c, asbytes=True) for c in (content[:half], content[half:])
        )
    file.write_bytes(content)
    return file


NAMES = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_a_text_a_row(tmp_path, name):
    file = save(ROWS, tmp_path / name)
    assert list(read_texts([file])) == ["one", "日 ñ"]
    assert list(read_texts([f"{file}:body"])) == ["eins", "zwei"]


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_is_not_there_lists_those_that_are(tmp_path, name):
    file = save(ROWS, tmp_path / name)
    with pytest.raises(ValueError, match=r"there is no field 'title', but 'text', 'body': write"):
        list(read_texts([f"{file}:title"]))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_a_compressed_text_is_one_text(tmp_path, name):
    content = "one\ntwo ñ\n".encode()
    squeezed = (
        gzip.compress(content)
        if name.endswith(".gz")
        else pyarrow.Codec("zstd").compress(content, asbytes=True)
    )
    (tmp_path / name).write_bytes(squeezed)
    assert list(read_texts([tmp_path / name])) == ["one\ntwo ñ\n"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt.gz"])
def test_a_damaged_file_is_named(tmp_path, name):
    file = save(ROWS * 100, tmp_path / name)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"cannot read .*{name}"):
        list(read_texts([file]))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz"])
def test_a_file_damaged_in_its_middle_is_named(tmp_path, name):
    file = save(ROWS * 100, tmp_path / name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read .*{name}"):
        list(read_texts([file]))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_text_with_a_byte_order_mark_is_read_right(tmp_path, name, encoding):
    text = json.dumps({"text": "caf\xe9"}) + "\n" if name == "a.jsonl" else "caf\xe9"
    (tmp_path / name).write_text(text, encoding=encoding)
    assert list(read_texts([tmp_path / name])) == ["caf\xe9"]


def test_a_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("caf\xe9 r\xe9sum\xe9 " * 50, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.txt is not in UTF-8: 150 of 600 characters"):
        list(read_texts([tmp_path / "a.txt"]))
    (tmp_path / "b.txt").write_text("plain", encoding="utf-16-le")
    with pytest.raises(ValueError, match=r"b\.txt holds zero bytes: it is no text, or in UTF-16"):
        list(read_texts([tmp_path / "b.txt"]))


def test_a_replacement_character_of_the_text_itself_is_no_damage(tmp_path):
    (tmp_path / "a.txt").write_text("\ufffd" * 10, encoding="utf-8")
    assert list(read_texts([tmp_path / "a.txt"])) == ["\ufffd" * 10]


def test_a_folder_with_a_table_is_the_table_without_its_readme(tmp_path):
    save(ROWS, tmp_path / "train.parquet")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.txt").write_text("hidden")
    assert list(read_texts([tmp_path])) == ["one", "日 ñ"]


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path):
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "data.csv").write_text("text\none\n")
    with pytest.warns(Notice, match=r"that are not read as text: \.csv \(1\)"):
        assert list(read_texts([tmp_path])) == ["about"]


def test_a_data_set_is_streamed_row_by_row(tmp_path):
    save(ROWS, tmp_path / "train.jsonl")
    assert list(read_texts([f"hf:{tmp_path}"])) == ["one", "日 ñ"]
    assert list(read_texts([f"hf:{tmp_path}:body"])) == ["eins", "zwei"]
    with pytest.raises(ValueError, match="there is no field 'title', but 'text', 'body'"):
        list(read_texts([f"hf:{tmp_path}:title"]))


def test_a_data_set_without_a_training_split_says_what_is_read(tmp_path):
    save(ROWS, tmp_path / "test.jsonl")
    with pytest.warns(Notice, match="has no split 'train': its 'test' is read"):
        assert list(read_texts([f"hf:{tmp_path}"])) == ["one", "日 ñ"]


def test_a_data_set_that_is_not_here_says_so_while_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ValueError, match=r"cannot read the data set hf:a/b.*HF_HUB_OFFLINE"
    ) as told:
        list(read_texts(["hf:a/b"]))
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="hf:a b names no data set: write hf:org/name"):
        list(read_texts(["hf:a b"]))


def test_a_data_set_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'qwen-circuits\[datasets\]'"):
        list(read_texts(["hf:a/b"]))


def test_a_corpus_can_be_opened_again(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    opened = texts_of([tmp_path / "a.txt"])
    assert list(opened()) == list(opened()) == ["one"]


def test_the_bundled_english_is_drawn_by_its_seed():
    firsts = [next(texts_of(["bundled"], seed=seed)()) for seed in (0, 0, 1)]
    assert firsts[0] == firsts[1] != firsts[2]


def test_a_corpus_without_a_text_is_refused_when_it_is_named(tmp_path):
    with pytest.raises(ValueError, match="no text in"):
        texts_of([tmp_path])
