"""Prompt files: what is read, what is written, and what a wrong line is told."""

import json

import pytest

from circuits.prompt_files import (
    Prompt,
    prompt_lines,
    prompt_of,
    read_prompts,
    write_prompts,
)


def write(tmp_path, *lines, name="prompts.jsonl"):
    path = tmp_path / name
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


GOOD = {
    "clean": "The keys near the table",
    "patch": "The key near the table",
    "answer": " are",
    "wrong": " is",
}


def test_prompts_survive_a_round_trip(tmp_path):
    prompts = read_prompts(write(tmp_path, {**GOOD, "case": "plural"}, GOOD))
    write_prompts(prompts, tmp_path / "again.jsonl")
    again = read_prompts(tmp_path / "again.jsonl")
    assert [(p.clean, p.patch, p.answer, p.wrong, p.case) for p in again] == [
        (p.clean, p.patch, p.answer, p.wrong, p.case) for p in prompts
    ]


def test_the_layout_of_feature_circuits(tmp_path):
    line = {
        "clean_prefix": "The uncles behind the dogs",
        "patch_prefix": "The uncle behind the dogs",
        "clean_answer": " do",
        "patch_answer": " does",
        "case": "plural_plural",
    }
    (prompt,) = read_prompts(write(tmp_path, line))
    assert (prompt.answer, prompt.wrong, prompt.case) == ((" do",), (" does",), "plural_plural")


def test_csv_with_a_two_digit_label_is_greater_than(tmp_path):
    rows = ["clean,corrupted,label", "from the year 1352 to 13,from the year 1301 to 13,52"]
    (prompt,) = read_prompts(write(tmp_path, *rows, name="years.csv"))
    assert prompt.answer == ("6", "7", "8", "9")
    assert prompt.wrong == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        ({"clean": "x", "patch": "y", "answer": " a"}, "line 2: no field 'wrong'"),
        ({**GOOD, "wrong": " are"}, "line 2: .* both right and wrong"),
        ({**GOOD, "answer": 3}, "line 2: answer must be a text"),
        ({**GOOD, "clean": 3}, "line 2: clean and patch must be text"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_prompts(write(tmp_path, GOOD, line))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ValueError, match="there is no prompt file"):
        read_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(write(tmp_path, ""))


def test_other_encodings_are_read_or_refused_in_one_line(tmp_path):
    lines = json.dumps({**GOOD, "clean": "Die Schlüssel – 鍵"}, ensure_ascii=False) + "\n"
    path = tmp_path / "prompts.jsonl"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes((lines * 2).encode(encoding))
        assert [p.clean for p in read_prompts(path)] == ["Die Schlüssel – 鍵"] * 2
    path.write_bytes(b'{"clean": "x"}\n{"clean": "Schl\xfcssel"}')
    with pytest.raises(ValueError, match="line 2: byte 0xfc is not UTF-8; save the file as UTF-8"):
        read_prompts(path)
    path.write_bytes('{"clean": "x"}'.encode("utf-16-le"))
    with pytest.raises(ValueError, match="zero bytes"):
        read_prompts(path)
    rows = "clean,patch,answer,wrong\nThe keys,The key, are, is\n"
    (tmp_path / "p.csv").write_bytes(rows.encode("utf-8-sig"))
    assert read_prompts(tmp_path / "p.csv")[0].clean == "The keys"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**GOOD, "clean": ""}, "line 1: 'clean' is empty"),
        ({**GOOD, "patch": ""}, "line 1: 'patch' is empty .null where there is none"),
        ({**GOOD, "answer": ""}, "line 1: 'answer' is empty"),
        ({**GOOD, "wrong": []}, "line 1: 'wrong' is empty"),
        ({**GOOD, "clean": None}, "line 1: no field 'clean'"),
        ({"clean": "x", "label": 3}, "line 1: no field 'answer'"),
        ({**GOOD, "clean": [{"role": "user"}], "patch": None}, "a chat message is"),
        ({**GOOD, "clean": [{"role": "user", "content": "x"}]}, "both a list of chat messages"),
    ],
)
def test_what_is_empty_or_of_another_kind_is_said(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_prompts(write(tmp_path, line))


def test_a_json_list_and_cells_of_a_csv(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([GOOD, GOOD], indent=1))
    assert len(read_prompts(tmp_path / "list.json")) == 2
    rows = ["clean,patch,answer,wrong", "The keys,,,", "The keys,The key, are, is, too"]
    (prompt,) = read_prompts(write(tmp_path, *rows[:2], name="empty.csv"))
    assert (prompt.patch, prompt.answer, prompt.wrong) == (None, (), ())
    with pytest.raises(ValueError, match="line 3: more cells than the first line has names"):
        read_prompts(write(tmp_path, *rows, name="more.csv"))


FULL = [
    Prompt(clean="a", patch="b", answer=(" x",), wrong=(" y",), case="one"),
    Prompt(clean="Ñ – 鍵 \u2028 \"q\" \\ ", patch=None, answer=(), wrong=()),
    Prompt(clean="a\nb\t", patch="c", answer=(" x", "z"), wrong=()),
    Prompt(
        clean="user: hi", patch="user: ho", answer=("x",), wrong=("y", "z"),
        chat=((("user", "hi"),), (("user", "ho"),)),
    ),
    Prompt(clean="system: s\n\nuser: hi", patch=None, answer=("x",), wrong=(),
           chat=((("system", "s\n"), ("user", "hi")), None)),
]  # fmt: skip


def fields(prompt):
    return (prompt.clean, prompt.patch, prompt.answer, prompt.wrong, prompt.case, prompt.chat)


@pytest.mark.parametrize("written", FULL, ids=range(len(FULL)))
def test_whatever_a_prompt_holds_is_read_as_it_was_written(tmp_path, written):
    path = tmp_path / "prompts.jsonl"
    write_prompts([written, FULL[0]], path)
    found = read_prompts(path)
    assert fields(found[0]) == fields(written)
    assert fields(found[1]) == fields(FULL[0])
    assert path.read_text(encoding="utf-8") == prompt_lines([written, FULL[0]])
    assert prompt_lines(found) == prompt_lines([written, FULL[0]])


def test_every_prompt_knows_where_it_stands(tmp_path):
    path = write(tmp_path, GOOD, "", "  ", GOOD)
    assert [p.where for p in read_prompts(path)] == [f"{path}, line 1", f"{path}, line 4"]
    listed = write(tmp_path, json.dumps([GOOD, GOOD], indent=1), name="list.json")
    assert [p.where for p in read_prompts(listed)] == [f"{listed}, entry 1", f"{listed}, entry 2"]
    rows = ["clean,answer,wrong", '"two\nlines", are, is', "The keys, are, is"]
    cells = write(tmp_path, *rows, name="p.csv")
    assert [p.where for p in read_prompts(cells)] == [f"{cells}, line 3", f"{cells}, line 4"]
    assert read_prompts(cells)[0].clean == "two\nlines"


def test_lines_may_end_as_on_any_system(tmp_path):
    path = tmp_path / "prompts.jsonl"
    for end in (b"\n", b"\r\n", b"\r"):
        path.write_bytes(end.join([json.dumps(GOOD).encode()] * 3))
        assert len(read_prompts(path)) == 3


@pytest.mark.parametrize(
    ("label", "right", "wrong"),
    [("52", "6789", "01234"), ("08", "123456789", None), ("9", "123456789", None),
     ("10", "23456789", "0"), ("89", "9", "01234567"), ("99", None, "012345678")],
)  # fmt: skip
def test_years_are_later_by_their_tens_digit(label, right, wrong):
    """Where every digit is later, or none, the line cannot be used."""
    record = {"clean": "from 1", "corrupted": "from 2", "label": label}
    found = prompt_of(record, "line 1")
    if right and wrong:
        assert (found.answer, found.wrong, found.unfit) == (tuple(right), tuple(wrong), "")
    else:
        assert (found.answer, found.wrong) == ((), ())
        assert found.unfit.startswith("no single digit decides")


def test_a_label_beside_an_answer_is_no_year():
    record = {"clean": "a", "corrupted": "b", "label": "52", "answer": " x", "wrong": None}
    found = prompt_of(record, "line 1")
    assert (found.patch, found.answer, found.wrong) == ("b", (" x",), ())


def test_an_answer_given_twice_counts_once():
    found = prompt_of({**GOOD, "answer": [" are", " were", " are"]}, "line 1")
    assert found.answer == (" are", " were")


def test_a_wrong_answer_alone_is_refused():
    with pytest.raises(ValueError, match="line 3: a wrong answer needs a right one"):
        prompt_of({**GOOD, "answer": None}, "line 3")


def test_a_line_that_lacks_a_field_is_told_which_it_has():
    with pytest.raises(ValueError, match="no field 'wrong' or 'patch_answer'; the line has 'cl"):
        prompt_of({"clean": "x", "answer": "y"}, "line 3")
    with pytest.raises(ValueError, match="the line has no field"):
        prompt_of({}, "line 3")


def test_writing_that_fails_leaves_the_old_file(tmp_path):
    """A lone surrogate cannot be written as UTF-8."""
    path = tmp_path / "prompts.jsonl"
    write_prompts(FULL[:1], path)
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_prompts([Prompt(clean="\ud800", patch=None, answer=(), wrong=())], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
