"""Language models that are asked: one on this machine, one behind an address."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import torch
from transformers import GenerationConfig

from circuits.features.answers import endpoint, local
from tests.circuits.conftest import call
from tests.toys import speaking_toy

PROMPTS = ("the quick brown fox", "the quick brown dog runs", "ab", "the quick brown fox")


@pytest.fixture(params=["qwen2", "qwen3"])
def model(request):
    return speaking_toy(request.param, torch.float32)


def generated(model, prompt, tokens=12):
    """What Hugging Face's own generation writes."""
    ids = torch.tensor([model.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=0, pad_token_id=0
    )
    written = model.original_model.generate(ids, generation_config=settings)[0, ids.shape[1] :]
    return model.tokenizer.decode([t for t in written.tolist() if t != 0])


def test_a_local_model_answers_as_hugging_face_generates_whatever_it_was_asked_before(model):
    answer = local(model, tokens=12)
    for prompt in PROMPTS:
        assert answer(prompt) == generated(model, prompt)


def test_an_answer_ends_where_it_is_told_to(model):
    whole = generated(model, PROMPTS[0])
    mark = whole.lstrip()[3]
    said = local(model, tokens=12, stop=(mark,))(PROMPTS[0])
    assert whole.startswith(said)
    assert mark in said
    assert mark not in said[:-2].lstrip()


def test_a_chat_template_is_what_the_prompt_goes_through(model, monkeypatch):
    template = "{% for m in messages %}ab{{ m['content'] }}?{% endfor %}"
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    assert local(model, tokens=12)("cab") == generated(model, "abcab?")


class Server(BaseHTTPRequestHandler):
    """Answers with the prompt backwards, once it has been asked often enough."""

    asked: ClassVar[list[dict]] = []
    replies: ClassVar[list[tuple[int, bytes]]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
        told = {"choices": [{"message": {"content": body["messages"][0]["content"][::-1]}}]}
        code, content = self.replies.pop(0) if self.replies else (200, json.dumps(told).encode())
        self.send_response(code)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setattr(Server, "replies", [])
    running = HTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    running.server_close()
    thread.join()


def test_an_endpoint_is_asked_as_openai_is(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert endpoint(f"{server}/", "some-model", tokens=7)("abc 复") == "复 cba"
    assert Server.asked == [
        {
            "path": "/v1/chat/completions",
            "key": "Bearer secret",
            "model": "some-model",
            "messages": [{"role": "user", "content": "abc 复"}],
            "temperature": 0,
            "max_tokens": 7,
        }
    ]
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint(server, "m")("x")
    assert Server.asked[-1]["key"] is None


def test_an_endpoint_that_draws_is_told_another_seed_each_time(server):
    answer = endpoint(server, "m", temperature=0.7, seed=3, wait=0.0)
    Server.replies += [(503, b"busy")]
    assert [answer("ab"), answer("ab")] == ["ba", "ba"]
    # A busy server is asked the same again.
    assert [body["seed"] for body in Server.asked] == [3, 3, 4]
    assert {body["temperature"] for body in Server.asked} == {0.7}
    with pytest.raises(ValueError, match="temperature is -1.0: expected 0 or more"):
        endpoint(server, "m", temperature=-1.0)


def test_a_busy_endpoint_is_asked_again(server):
    Server.replies += [(503, b"busy"), (429, b"slow down")]
    assert endpoint(server, "m", wait=0.0)("ab") == "ba"
    assert len(Server.asked) == 3


def test_the_command_asks_an_endpoint_and_says_what_it_could_not_read(server):
    given = ["describe", "bundled", "--site", "resid_post.3", "--count", 2, "--text", "bundled"]
    given += ["--tokens", 4096, "--shown", 3, "--judged", 2]
    done = call(*given, "--endpoint", server, "--name", "some-model")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "described by model some-model, judged by model some-model" in said
    assert "note: of 16 verdicts 16 could not be read and do not count" in said
    # One explanation each, and of both kinds of question four descriptions each.
    assert len(Server.asked) == 2 + 2 * 2 * 4


def test_the_command_has_an_endpoint_write_texts_for_what_is_missing(server, tmp_path, fails):
    texts = {
        "training": [("The boy saw a dog.", "a"), ("The girl saw a cat.", "b")],
        "target": [("The pilot of Varden read books.", "a"), ("A pilot read in Varden.", "a"),
                   ("Anna ate 3 apples at noon.", "b"), ("At noon Anna ate bread.", "b")],
    }  # fmt: skip
    given = ["synthesise", "bundled", "--out", tmp_path / "out"]
    for name, rows in texts.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in rows))
        given += [f"--{name}", path]
    given += ["--features", 3, "--tries", 2, "--seeds", 2, "--tokens", 9, "--temperature", 0.5]
    given += ["--seed", 7, "--endpoint", server, "--name"]
    done = call(*given, "some-model")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "synthesis.json").read_text())
    assert record["made_from"]["generator"] == "some-model"
    assert len(record["asked"]) == 3
    # Asked for: three features twice, in both dictionaries and under both seeds; more at random.
    assert len(Server.asked) >= 24
    assert [body["seed"] for body in Server.asked] == list(range(7, 7 + len(Server.asked)))
    assert {(body["temperature"], body["max_tokens"]) for body in Server.asked} == {(0.5, 9)}
    said = [body["messages"][0]["content"] for body in Server.asked]
    assert all(prompt.endswith("Answer with the text alone.") for prompt in said)
    written = (tmp_path / "out" / "written.jsonl").read_text().splitlines()
    backwards = {" ".join(prompt[::-1].split()) for prompt in said}
    assert {json.loads(line)["text"] for line in written} <= backwards
    assert "made from something else" in fails(*given, "another-model")


@pytest.mark.parametrize(
    ("replies", "match"),
    [
        ([(401, b"no such key")], "answered 401: no such key"),
        ([(500, b"broken")] * 4, "answered 500: broken"),
        ([(200, b"hello")], "answered b'hello': expected an object with choices"),
        ([(200, b'{"choices": []}')], "expected an object with choices"),
    ],
)
def test_what_an_endpoint_does_not_answer_is_said(server, replies, match):
    Server.replies += replies
    with pytest.raises(ValueError, match=match):
        endpoint(server, "m", wait=0.0)("ab")


def test_an_address_that_is_none_is_said():
    with pytest.raises(ValueError, match="'localhost:8000' is no address: write http://"):
        endpoint("localhost:8000", "m")
    with pytest.raises(ValueError, match="127.0.0.1:9/v1/chat/completions cannot be reached"):
        endpoint("http://127.0.0.1:9/v1", "m", wait=0.0)("ab")
