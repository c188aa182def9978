"""Prompt files: what is read, and what a wrong line is told."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.metrics.answers import clean_logits, metric_of
from circuits.prompts import Prompt, encode_prompts, read_prompts, write_prompts
from hooked_qwen.bundled import PATH
from hooked_qwen.forward import last_logits
from hooked_qwen.load import hook, load_tokenizer
from tests.conftest import toy, toy_hf, toy_suite, toy_tokenizer


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


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ValueError, match="there is no prompt file"):
        read_prompts(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(write(tmp_path, ""))


# Tokenizers that put a token before every text.


@pytest.fixture
def begins():
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="? $A", special_tokens=[("?", tokenizer.convert_tokens_to_ids("?"))]
    )
    return tokenizer


def test_the_metric_is_that_of_the_tokenizers_own_call(begins):
    hf = toy_hf(dtype=torch.float32)
    model = hook(hf, tokenizer=begins, name="toy")
    prompt = Prompt(clean="caxc", patch="cbxc", answer=("x",), wrong=("y",))
    x, y = (begins.convert_tokens_to_ids(t) for t in "xy")
    found = {}
    for bos in ("auto", "always", "never"):
        encoded = encode_prompts([prompt], begins, positions="keep", bos=bos)
        metric = metric_of("logit-difference", model, encoded)
        found[bos] = float(metric(last_logits(model, encoded.clean), torch.arange(1)))
    reference = toy_hf(dtype=torch.float32)(torch.tensor([begins("caxc")["input_ids"]])).logits
    expected = float((reference[0, -1, x] - reference[0, -1, y]).detach())
    assert found["auto"] == pytest.approx(expected, rel=1e-4)
    assert found["never"] != pytest.approx(expected, rel=1e-2)


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


def test_an_answer_that_the_model_does_not_have_is_named():
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["other"])
    model = hook(toy_hf(dtype=torch.float32), tokenizer=tokenizer, name="toy")
    prompt = Prompt(clean="cab", patch="xab", answer=("other",), wrong=("y",))
    encoded = encode_prompts([prompt], tokenizer, positions="keep")
    with pytest.raises(ValueError, match=r"the token 'other' has number 60, but toy embeds 60"):
        metric_of("logit-difference", model, encoded)


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


def test_the_metric_of_several_tokens_is_that_of_plain_transformers(tmp_path):
    hf, tokens = toy_hf(), toy_tokenizer()
    line = {"clean": "xy", "patch": "zy", "answer": "cde", "wrong": ["cdf", "cdgh"]}
    prompts = encode_prompts(read_prompts(write(tmp_path, line)), tokens, positions="keep")
    plain = hf(torch.tensor([tokens("xycd")["input_ids"]])).logits[0, -1].detach()
    e, f, g = (tokens(x)["input_ids"][0] for x in "efg")
    expected = plain[e] - (plain[f] + plain[g]) / 2
    model = toy()
    metric = metric_of("logit-difference", model, prompts)
    found = metric(clean_logits(model, prompts), torch.tensor([0]))
    assert float(found) == pytest.approx(float(expected), abs=1e-9)
    logp = metric_of("log-probability", model, prompts)(
        clean_logits(model, prompts), torch.tensor([0])
    )
    assert float(logp) == pytest.approx(float(plain.log_softmax(-1)[e]), abs=1e-9)


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
