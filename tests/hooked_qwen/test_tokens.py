"""Text becomes tokens with nothing lost but the last, shorter block."""

import json
from types import SimpleNamespace

import pytest
import torch

from hooked_qwen import tokens
from hooked_qwen.tokens import (
    encode,
    end_of_text,
    pad_left,
    read_texts,
    token_blocks,
    token_strings,
)
from tests.conftest import toy_tokenizer

TEXTS = ["cab cab", "", "a b, ab?\n", "Hello", "x" * 40, "bye!"]


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer()


def test_the_last_token_of_every_prompt_is_the_last_column():
    rows = [[5, 6, 7], [8], [9, 3]]
    batch = pad_left(rows, pad=0)
    assert len(batch) == 3
    assert batch.tokens.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 3]]
    for row, padded, mask in zip(rows, batch.tokens, batch.mask, strict=True):
        assert padded[mask].tolist() == row
        assert mask.tolist() == sorted(mask.tolist())


def test_a_real_token_that_equals_the_pad_is_no_padding():
    assert pad_left([[0, 0], [4]], pad=0).mask.tolist() == [[True, True], [False, True]]


def test_rows_of_a_batch_keep_their_mask():
    batch = pad_left([[5, 6, 7], [8], [9, 3]], pad=0)
    picked = batch.rows(torch.tensor([2, 0, 2]))
    assert picked.tokens.tolist() == [[0, 9, 3], [5, 6, 7], [0, 9, 3]]
    assert picked.mask.sum(1).tolist() == [2, 3, 2]


def test_a_batch_moves_whole():
    batch = pad_left([[1, 2], [3]], pad=0).to("meta")
    assert batch.tokens.is_meta
    assert batch.mask.is_meta


@pytest.mark.parametrize("rows", [[], [[]], [[1], []]])
def test_an_empty_prompt_is_an_error(rows):
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        pad_left(rows, pad=0)


def test_token_strings_put_together_are_the_text(tokenizer):
    text = "cab a, ab b!\n"
    strings = token_strings(tokenizer, encode(tokenizer, text))
    assert "".join(strings) == text
    assert strings[:4] == ["c", "ab", " ", "a"]


@pytest.mark.parametrize("length", [1, 2, 5, 7, 16, 1000])
def test_blocks_are_the_texts_end_to_end_with_eos_between(tokenizer, length):
    stream = []
    for text in TEXTS:
        stream += [*encode(tokenizer, text), tokenizer.eos_token_id]
    blocks = [b.tolist() for b in token_blocks(TEXTS, tokenizer, length=length)]
    assert all(len(block) == length for block in blocks)
    joined = [token for block in blocks for token in block]
    assert joined == stream[: len(joined)]
    # A full block is cut when text comes in, so the last separator may wait for a next text.
    assert len(stream) - 1 - len(joined) < length


def test_long_texts_are_encoded_in_pieces(tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "CHARACTERS_AT_ONCE", 3)
    pieces = [block.item() for block in token_blocks(["cccxyzq", "a"], tokenizer, length=1)]
    whole = [*encode(tokenizer, "cccxyzq"), tokenizer.eos_token_id, *encode(tokenizer, "a")]
    assert pieces == whole


def test_a_chat_tokenizer_separates_texts_by_the_end_of_a_text_not_of_a_turn():
    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "!"})
    assert tokenizer.eos_token_id != end_of_text(tokenizer) == 0
    stream = torch.cat(list(token_blocks(["a", "b", "c"], tokenizer, length=1))).tolist()
    assert stream == [
        *encode(tokenizer, "a"),
        0,
        *encode(tokenizer, "b"),
        0,
        *encode(tokenizer, "c"),
    ]


def test_a_tokenizer_without_any_end_is_an_error():
    with pytest.raises(ValueError, match=r"no <\|endoftext\|> and no end-of-sequence token"):
        end_of_text(SimpleNamespace(get_vocab=dict, eos_token_id=None))


def test_text_too_short_for_a_block_gives_none(tokenizer):
    assert list(token_blocks(["cab"], tokenizer, length=50)) == []
    assert list(token_blocks([], tokenizer, length=5)) == []


@pytest.mark.parametrize("suffix", [".txt", ".md", ".py"])
def test_a_text_file_is_one_text(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_text("one\ntwo ñ\n", encoding="utf-8")
    assert list(read_texts([file])) == ["one\ntwo ñ\n"]


def test_bytes_that_are_no_utf8_are_replaced(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert list(read_texts([tmp_path / "a.txt"])) == ["caf\ufffd"]


def test_jsonl_is_a_text_a_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(
        "\n".join([json.dumps({"text": "one", "id": 1}), "", json.dumps({"text": "ñ"})]),
        encoding="utf-8",
    )
    assert list(read_texts([file])) == ["one", "ñ"]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', '{"body": "x"}', "3", "null"])
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
