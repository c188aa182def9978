"""Prompts in tokens: what fits a tokenizer, and what a prompt that does not is told."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.prompts import Prompt, encode_prompts, read_prompts, write_prompts
from hooked_qwen.bundled import PATH
from hooked_qwen.load import hook, load_tokenizer
from tests.toys import toy_hf, toy_suite, toy_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(PATH)


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


def test_our_own_layout(tmp_path, tokenizer):
    prompts = read_prompts(write(tmp_path, GOOD, {**GOOD, "answer": [" are", " were"]}))
    encoded = encode_prompts(prompts, tokenizer, positions="keep")
    assert len(encoded) == 2
    assert encoded.columns == ("The", " keys", " near", " the", " table")
    assert [len(ids) for ids in encoded.answer_ids] == [1, 2]
    assert tokenizer.decode([encoded.answer_ids[0][0]]) == " are"


@pytest.mark.parametrize(
    ("line", "positions", "message"),
    [
        ({**GOOD, "answer": " are not", "wrong": " are"}, "sum", "line 2: no single token tells"),
        ({**GOOD, "patch": GOOD["clean"]}, "sum", "line 2: clean and patch are the same"),
        ({**GOOD, "patch": "The key near the old table"}, "sum", "line 2: clean has 5 tokens"),
        (
            {**GOOD, "clean": "The keys are", "patch": "The key are"},
            "keep",
            "line 2: 3 tokens where most prompts have 5.*--positions end.* or sum",
        ),
        (
            {k: v for k, v in GOOD.items() if k != "patch"},
            "sum",
            "line 2: either every prompt has a patch or none has",
        ),
    ],
)
def test_a_line_that_does_not_fit_the_tokenizer_is_named(
    tmp_path, tokenizer, line, positions, message
):
    prompts = read_prompts(write(tmp_path, GOOD, line, GOOD))
    with pytest.raises(ValueError, match=message):
        encode_prompts(prompts, tokenizer, positions=positions)


def test_prompts_of_different_lengths_end_in_one_column(tmp_path, tokenizer):
    short = {**GOOD, "clean": "The keys", "patch": "The key"}
    encoded = encode_prompts(read_prompts(write(tmp_path, GOOD, short)), tokenizer, positions="sum")
    assert encoded.columns is None
    assert encoded.clean.mask.sum(1).tolist() == [5, 2]
    assert torch.equal(encoded.clean.mask[1], torch.tensor([False] * 3 + [True] * 2))
    lined_up = encode_prompts(encoded.prompts, tokenizer, positions="end")
    assert torch.equal(lined_up.clean.tokens, encoded.clean.tokens)
    assert lined_up.columns is not None
    assert lined_up.columns[:3] == ("The…", " keys…", " near…")
    assert len(lined_up.columns) == lined_up.n_positions("end") == 5


def test_columns_are_named_by_the_prompt_that_is_shown(tmp_path, tokenizer):
    other = {**GOOD, "clean": GOOD["clean"].replace("keys", "boys")}
    other["patch"] = GOOD["patch"].replace("key", "boy")
    prompts = read_prompts(write(tmp_path, GOOD, other, other))
    columns = encode_prompts(prompts, tokenizer, positions="keep").columns
    assert columns is not None
    assert columns[:3] == ("The", " keys…", " near")


# Tokenizers that put a token before every text.


def test_what_stands_before_a_prompt_has_a_position_and_is_recorded(begins):
    prompt = Prompt(clean="caxc", patch="cbxc", answer=("x",), wrong=("y",))
    encoded = encode_prompts([prompt], begins, positions="keep")
    assert encoded.columns == ("?", "c", "a", "x", "c")
    assert encoded.begins_with == ("?",)
    assert encoded.answer_ids == ((begins.convert_tokens_to_ids("x"),),), "answers begin nothing"
    assert encode_prompts([prompt], begins, positions="keep", bos="never").begins_with == ()


def test_a_graph_says_what_stands_before_its_prompts(begins):
    model = hook(toy_hf(dtype=torch.float32), tokenizer=begins, name="toy")
    prompt = Prompt(clean="caxc", patch="cbxc", answer=("x",), wrong=("y",))
    suite = toy_suite("mlp_out.1", dtype=torch.float32)
    for bos, begin in (("auto", ["?"]), ("never", [])):
        config = DiscoverConfig(nodes=2, bos=bos, estimator="patching")
        encoded = encode_prompts([prompt], begins, positions="keep", bos=bos)
        meta = discover(Analysis.of(model, suite, encoded, config)).graph.graph
        assert (meta["bos"], meta["begins_with"]) == (bos, begin)


def test_prompts_that_do_not_fit_are_left_out_and_counted(tmp_path, tokenizer):
    unequal = {**GOOD, "patch": "The key near the old table"}
    same = {**GOOD, "patch": GOOD["clean"]}
    prompts = read_prompts(write(tmp_path, unequal, GOOD, same, unequal, GOOD))
    encoded = encode_prompts(prompts, tokenizer, positions="keep", unfit="skip")
    assert [p.where for p in encoded.prompts] == [prompts[1].where, prompts[4].where]
    assert encoded.left_out == {
        "clean and patch are not of one length": 2,
        "clean and patch are the same": 1,
    }
    with pytest.raises(ValueError, match="none of 1 prompts fits .*: 1 clean and patch are the"):
        encode_prompts(prompts[2:3], tokenizer, positions="keep", unfit="skip")
    short = read_prompts(write(tmp_path, GOOD, GOOD, {**GOOD, "clean": "A key", "patch": "A cat"}))
    assert encode_prompts(short, tokenizer, positions="keep", unfit="skip").left_out == {
        "of another length than most, with positions kept": 1
    }


def test_years_that_no_digit_decides_are_left_out(tmp_path, tokenizer):
    rows = ["clean,corrupted,label", *(f"from 1{n} to 1,from 101 to 1,{n}" for n in (52, 95, 9))]
    prompts = read_prompts(write(tmp_path, *rows, name="years.csv"))
    with pytest.raises(ValueError, match="line 3: no single digit decides"):
        encode_prompts(prompts, tokenizer, positions="sum")
    encoded = encode_prompts(prompts, tokenizer, positions="sum", unfit="skip")
    assert (len(encoded), list(encoded.left_out.values())) == (1, [2])


# The data of github.com/saprmarks/feature-circuits, where it is at hand.
PUBLISHED = Path(os.environ.get("FEATURE_CIRCUITS_DATA", "absent")) / "nounpp_test.json"


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published prompt set is not here")
def test_the_rest_of_a_published_set_is_used(tokenizer):
    prompts = read_prompts(PUBLISHED)
    with pytest.raises(ValueError, match="nounpp_test.json, line"):
        encode_prompts(prompts, tokenizer, positions="sum")
    encoded = encode_prompts(prompts, tokenizer, positions="sum", unfit="skip")
    assert 0 < len(encoded) == len(prompts) - sum(encoded.left_out.values()) < len(prompts)


def test_answers_of_several_tokens_differ_at_one(tmp_path):
    """What right and wrong share is read as prompt; the next token is the answer."""
    tokens = toy_tokenizer()  # a token a letter, but for "ab"
    line = {"clean": "xy", "patch": "zy", "answer": "cde", "wrong": ["cdf", "cdgh"]}
    prompts = read_prompts(write(tmp_path, line, {**line, "answer": ["c", "d"], "wrong": None}))
    encoded = encode_prompts(prompts, tokens, positions="end")
    texts = [tokens.decode(row[mask]) for row, mask in zip(
        encoded.clean.tokens, encoded.clean.mask, strict=True)]  # fmt: skip
    assert texts == ["xycd", "xy"]
    assert [tokens.decode(list(ids)) for ids in encoded.answer_ids] == ["e", "cd"]
    assert tokens.decode(list(encoded.wrong_ids[0])) == "fg"
    assert encoded.several_tokens == 1
    for answer, wrong in (("cd", "c"), (["cd", "ef"], "ce")):
        unclear = read_prompts(write(tmp_path, {**line, "answer": answer, "wrong": wrong}))
        with pytest.raises(ValueError, match="line 1: no single token tells .* from"):
            encode_prompts(unclear, tokens, positions="sum")


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_chat_messages_go_through_the_models_template(tmp_path, tokenizer):
    def side(word):
        return [{"role": "system", "content": "S"}, {"role": "user", "content": f"The {word}"}]

    line = {**GOOD, "clean": side("keys"), "patch": side("key")}
    prompts = read_prompts(write(tmp_path, line))
    with pytest.raises(ValueError, match="line 1: .* no chat template: take an instruct model"):
        encode_prompts(prompts, tokenizer, positions="keep")
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = CHAT
    encoded = encode_prompts(prompts, chatty, positions="keep")
    said = chatty.decode(encoded.clean.tokens[0])
    assert said == "<system>S<user>The keys<assistant>"
    write_prompts(prompts, tmp_path / "again.jsonl")
    assert read_prompts(tmp_path / "again.jsonl")[0].chat == prompts[0].chat
    begun = [*side("keys"), {"role": "assistant", "content": "Well"}]
    (prompt,) = read_prompts(write(tmp_path, {**line, "clean": begun, "patch": None}))
    goes_on = encode_prompts([prompt], chatty, positions="keep")
    assert chatty.decode(goes_on.clean.tokens[0]) == "<system>S<user>The keys<assistant>Well"
    chatty.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(ValueError, match="line 1: .*template refuses it .no system messages"):
        encode_prompts(prompts, chatty, positions="keep")


def test_other_prompts_stand_in_the_columns_of_the_run(tmp_path, tokenizer):
    short = read_prompts(write(tmp_path, {**GOOD, "clean": "The keys", "patch": "The key"}))
    encoded = encode_prompts(short, tokenizer, positions="end", width=5)
    assert encoded.clean.mask.tolist() == [[False] * 3 + [True] * 2]
    assert encoded.columns is not None
    assert len(encoded.columns) == 5
    for positions, width in (("end", 1), ("keep", 5)):
        with pytest.raises(ValueError, match="line 1: 2 tokens, but the run's prompts have"):
            encode_prompts(short, tokenizer, positions=positions, width=width)
