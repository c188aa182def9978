"""Texts as tokens: to train on, held out, and prompts to write after."""

import json
from itertools import islice

import pytest

from circuits.runs.trained import (
    TrainedConfig,
)
from circuits.runs.training_texts import HELD_OUT, MOST_PROMPTS, clean_rows, material, rows_of
from hooked_qwen.bundled import language
from hooked_qwen.load import load_tokenizer


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Ten texts of the bundled model's language, and as many prompts with one that is blank."""
    folder = tmp_path_factory.mktemp("texts")
    written(folder / "clean.jsonl", islice(language.documents(seed=5), 10))
    written(folder / "prompts.jsonl", ["", *["The boys"] * (MOST_PROMPTS + 5)])
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bundled")


def written(path, texts):
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(path)


def test_long_texts_are_cut_into_several(texts, tokenizer):
    config = TrainedConfig(longest=16, texts=1000)
    rows = rows_of(tokenizer, [texts / "clean.jsonl"], config)
    assert max(map(len, rows)) == 16
    assert min(map(len, rows)) >= 8
    whole = [
        tokenizer(json.loads(line)["text"])["input_ids"]
        for line in (texts / "clean.jsonl").read_text().splitlines()
    ]
    assert rows[: len(whole[0]) // 16] == [
        whole[0][i : i + 16] for i in range(0, len(whole[0]) // 16 * 16, 16)
    ]


def test_of_texts_that_are_all_to_train_on_every_tenth_piece_is_held_out(texts, tokenizer):
    config = TrainedConfig(longest=16, texts=25)
    found = material(
        tokenizer, [str(texts / "clean.jsonl")], [], [str(texts / "prompts.jsonl")], config
    )
    rows = rows_of(tokenizer, [texts / "clean.jsonl"], config)
    assert found.clean == {"held out": rows[::HELD_OUT]}
    assert found.train == [row for i, row in enumerate(rows) if i % HELD_OUT]
    assert found.prompts == ("The boys",) * MOST_PROMPTS


def test_texts_to_judge_on_are_called_by_their_files(texts, tokenizer, tmp_path):
    config = TrainedConfig(longest=16, texts=5)
    other = written(tmp_path / "other.jsonl", islice(language.documents(seed=6), 3))
    found = material(tokenizer, [other], [str(texts / "clean.jsonl")], [other], config)
    assert found.train == rows_of(tokenizer, [other], config)
    assert found.clean == clean_rows(tokenizer, [str(texts / "clean.jsonl")], config)
    assert list(found.clean) == ["clean.jsonl"]
    assert len(found.clean["clean.jsonl"]) == 5


def test_texts_that_do_not_do_are_told(texts, tokenizer, tmp_path):
    config, clean = TrainedConfig(), str(texts / "clean.jsonl")
    with pytest.raises(ValueError, match="clean.jsonl is to be trained on and held out: give"):
        material(tokenizer, [clean], [clean], [], config)
    short = written(tmp_path / "short.jsonl", ["The boys"])
    with pytest.raises(ValueError, match="no text of .*short.jsonl has 8 tokens"):
        rows_of(tokenizer, [short], config)
    one = written(tmp_path / "one.jsonl", islice(language.documents(seed=6), 1))
    with pytest.raises(ValueError, match="there is one text only, to train on or to hold out"):
        material(tokenizer, [one], [], [], TrainedConfig(texts=2, longest=1000))
