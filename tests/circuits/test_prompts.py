"""Prompt files: what is read, and what a wrong line is told."""

import json

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from circuits.answers import metric_of
from circuits.discover import discover
from circuits.prompts import Prompt, encode_prompts, read_prompts, write_prompts
from circuits.ranking import DiscoverConfig
from hooked_qwen.bundled import PATH
from hooked_qwen.forward import last_logits
from hooked_qwen.load import hook, load_tokenizer
from tests.conftest import toy_hf, toy_suite, toy_tokenizer


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
        ({**GOOD, "answer": " are not"}, "sum", "line 2: the answer ' are not' is 2 tokens"),
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
        meta = discover(model, suite, encoded, config=config).graph.graph
        assert (meta["bos"], meta["begins_with"]) == (bos, begin)


def test_an_answer_that_the_model_does_not_have_is_named():
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["other"])
    model = hook(toy_hf(dtype=torch.float32), tokenizer=tokenizer, name="toy")
    prompt = Prompt(clean="cab", patch="xab", answer=("other",), wrong=("y",))
    encoded = encode_prompts([prompt], tokenizer, positions="keep")
    with pytest.raises(ValueError, match=r"the token 'other' has number 60, but toy embeds 60"):
        metric_of("logit-difference", model, encoded)
