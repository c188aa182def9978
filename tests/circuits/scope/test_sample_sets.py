"""What a set of samples may be."""

import pytest

from circuits.prompt_files import write_prompts
from circuits.scope.sample_sets import read_results, sample_sets
from circuits.tasks import as_many_as_exist, make_for
from hooked_qwen.load import load_tokenizer
from tests.circuits.features.test_coverage import write


def test_a_set_is_a_task_a_file_of_prompts_or_of_texts(tmp_path):
    tokenizer = load_tokenizer("bundled")
    prompts = tmp_path / "prompts.jsonl"
    made = make_for("bundled", "ioi", 6, split="train")
    write_prompts(made, prompts)
    labelled = write(tmp_path / "labelled.jsonl", [{"text": "The boy", "label": "a"}] * 3)
    sources = ["ioi", str(prompts), str(labelled)]
    found = sample_sets(sources, "bundled", tokenizer, texts=4)
    assert list(found) == ["ioi", "prompts", "labelled"]
    assert found["prompts"] == [p.clean for p in made[:4]]
    assert found["labelled"] == ["The boy"] * 3
    assert len(found["ioi"]) == 4
    assert found["ioi"][:2] == [
        p.clean for p in as_many_as_exist("bundled", "ioi", 2, split="train")
    ]
    other = tmp_path / "more" / "prompts.jsonl"
    other.parent.mkdir()
    other.write_text(prompts.read_text())
    both = [str(prompts), str(other)]
    assert list(sample_sets(both, "bundled", tokenizer, texts=1)) == both
    with pytest.raises(ValueError, match="ioi is given 2 times"):
        sample_sets(["ioi", "ioi"], "bundled", tokenizer, texts=1)
    with pytest.raises(ValueError, match="no text at nowhere; a task is one of agreement_simple"):
        sample_sets(["nowhere"], "bundled", tokenizer, texts=1)


def test_chat_prompts_are_read_as_the_model_reads_them(tmp_path):
    chat = [{"role": "user", "content": "Hello"}]
    file = write(tmp_path / "chat.jsonl", [{"clean": chat, "answer": None, "wrong": None}])

    class Templated:
        chat_template = "there is one"

        def apply_chat_template(self, messages, **_):
            return "".join(f"<{m['role']}>{m['content']}" for m in messages)

    found = sample_sets([str(file)], "bundled", Templated(), texts=1)
    assert found == {"chat": ["<user>Hello"]}


def test_results_are_read_by_set_item_and_model(tmp_path):
    rows = [
        {"set": s, "item": i, "model": m, "correct": (i + len(m)) % 2 == 0}
        for s in ("a", "b") for i in (1, 0) for m in ("y", "xx")
    ]  # fmt: skip
    found = read_results(write(tmp_path / "results.jsonl", rows))
    assert found["a"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    table = tmp_path / "results.csv"
    table.write_text("set,item,correct\na,0,true\na,1,0.5\n")
    assert read_results(table)["a"].tolist() == [[1.0], [0.5]]
    with pytest.raises(ValueError, match="no result of 'y' for item 1"):
        read_results(write(tmp_path / "gap.jsonl", rows[1:]))
    with pytest.raises(ValueError, match="has a result of 'y' already"):
        read_results(write(tmp_path / "twice.jsonl", [rows[0], rows[0]]))
    with pytest.raises(ValueError, match='line 1: expected "set", "item"'):
        read_results(write(tmp_path / "bad.jsonl", [{"set": "a", "item": 0, "correct": 2}]))
    with pytest.raises(ValueError, match="holds no results"):
        read_results(write(tmp_path / "empty.jsonl", []))
