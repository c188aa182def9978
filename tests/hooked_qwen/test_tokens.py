"""Text becomes tokens with nothing lost but the last, shorter block."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from hooked_qwen.load import load_tokenizer
from hooked_qwen.tokens import (
    CHARACTERS_AT_ONCE,
    TokenSpan,
    encode,
    encode_prompt,
    encode_request,
    end_of_text,
    pad_left,
    start_of_text,
    token_blocks,
    token_strings,
    whole_characters,
)
from tests.toys import toy_tokenizer

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


def test_a_batch_is_cut_to_what_its_rows_have():
    batch = pad_left([[5, 6, 7, 4], [8], [9, 3]], pad=0)
    cut = batch.rows(torch.tensor([1, 2])).trimmed()
    assert cut.tokens.tolist() == [[0, 8], [9, 3]]
    assert cut.mask.tolist() == [[False, True], [True, True]]
    assert batch.trimmed().tokens.equal(batch.tokens)


class Chatty:
    """A tokenizer of characters, with a template."""

    chat_template = "there is one"

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(character) for character in text]}

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, **_):
        assert (tokenize, add_generation_prompt) == (False, True)
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_a_request_goes_through_the_chat_template_or_is_refused():
    expected = [ord(character) for character in "<user>Why?<assistant>"]
    assert encode_request(Chatty(), "Why?") == expected
    plain = Chatty()
    plain.chat_template = None
    with pytest.raises(ValueError, match="has no chat template to put a request through: take an"):
        encode_request(plain, "Why?")


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


def test_long_texts_are_encoded_in_pieces(tokenizer):
    """No letter is lost or doubled between two pieces."""
    long = "cccxyzq" * (2 * CHARACTERS_AT_ONCE // 7 + 1)
    whole = [*encode(tokenizer, long), tokenizer.eos_token_id, *encode(tokenizer, "a")]
    blocks = torch.cat(list(token_blocks([long, "a"], tokenizer, length=64))).tolist()
    assert blocks == whole[: len(blocks)]
    assert len(whole) - len(blocks) < 64


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


def beginning(token="<|endoftext|>"):
    """The toy's tokenizer, putting a token before every text as Gemma's does."""
    tokenizer = toy_tokenizer()
    number = tokenizer.convert_tokens_to_ids(token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, number)]
    )
    return tokenizer


def test_a_prompt_begins_as_the_tokenizers_own_call_does(tokenizer):
    assert encode_prompt(tokenizer, "cab ab") == tokenizer("cab ab")["input_ids"]
    begins = beginning()
    own = begins("cab ab")["input_ids"]
    assert encode_prompt(begins, "cab ab") == own != encode(begins, "cab ab")
    assert encode_prompt(begins, "<|endoftext|>cab ab") == own, "never twice"
    assert encode_prompt(begins, "cab ab", "never") == encode(begins, "cab ab")
    assert encode_prompt(begins, "cab ab", "always") == own


def test_bos_always_takes_the_tokenizers_own_or_says_that_it_has_none(tokenizer):
    with pytest.raises(ValueError, match="no beginning-of-sequence token"):
        start_of_text(tokenizer, "always")
    given = toy_tokenizer()
    given.add_special_tokens({"bos_token": "?"})
    assert start_of_text(given, "always") == [given.bos_token_id]
    assert start_of_text(given) == []


def test_an_end_that_the_tokenizer_adds_is_not_the_start():
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert start_of_text(tokenizer) == []


def test_every_text_of_a_block_begins_as_the_tokenizer_begins_texts():
    tokenizer = beginning(token="?")
    stream = torch.cat(list(token_blocks(["ab", "c", "b"], tokenizer, length=1))).tolist()
    start, ab, c, b = (tokenizer.convert_tokens_to_ids(t) for t in ("?", "ab", "c", "b"))
    assert stream == [start, ab, 0, start, c, 0, start, b]


# Bytes of GPT-2's vocabulary: of "é" (C3 A9), of " é", of the first half of "日" (E6 97 A5).
BYTES = {"Ã": "<0xC3>", "©": "<0xA9>", "Ã©": "é", "ĠÃ": " <0xC3>", "æĹ": "<0xE6><0x97>"}


def test_bytes_that_are_no_character_are_shown_and_whole_characters_stay():
    vocabulary = {piece: i for i, piece in enumerate(("<|endoftext|>", *BYTES, "æĹ¥", "ï¿½"))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    ids = [vocabulary[piece] for piece in (*BYTES, "æĹ¥", "ï¿½")]
    assert token_strings(tokenizer, ids) == [*BYTES.values(), "日", "\ufffd"]


def test_tokens_that_only_together_make_a_character_are_one_run():
    # "a日é", "日" in two tokens whose second begins "é", and bytes that nothing completes.
    pieces = ("a", "æĹ", "¥Ã", "©", "ï¿½", "æĹ")
    vocabulary = {p: i for i, p in enumerate(dict.fromkeys(("<|endoftext|>", *pieces)))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    runs = whole_characters(tokenizer, [vocabulary[piece] for piece in pieces])
    assert runs == [
        TokenSpan("a", 0, 1),
        TokenSpan("日é", 1, 4),
        TokenSpan("\ufffd", 4, 5),
        TokenSpan("<0xE6><0x97>", 5, 6),
    ]


def test_runs_of_a_text_make_the_text_and_leave_no_token_out():
    tokenizer = load_tokenizer("bundled")
    text = "The boys 复数 sit. 🙂 naïve"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    runs = whole_characters(tokenizer, ids)
    assert "".join(run.text for run in runs) == text
    assert [i for run in runs for i in range(run.first, run.stop)] == list(range(len(ids)))
    assert {"复", "数", "🙂"} <= {run.text for run in runs}


def test_bytes_of_a_tokenizer_that_falls_back_to_them_are_shown():
    pieces = ["<unk>", "▁a", *(f"<0x{byte:02X}>" for byte in range(256))]
    model = models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], byte_fallback=True)
    backend = Tokenizer(model)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_strings(tokenizer, [2 + 0xF0, 2 + 0x41]) == ["<0xF0>", "A"]


def test_a_number_that_is_no_token_is_shown_as_one(tokenizer):
    assert token_strings(tokenizer, [3, 151_700]) == ["a", "<id 151700>"]
