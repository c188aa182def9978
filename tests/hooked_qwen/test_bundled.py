"""The bundled model: what it learnt, its card, its tokenizer, its size."""

import re
import subprocess
import sys
from collections import defaultdict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hooked_qwen.bundled import PATH
from hooked_qwen.bundled.language import TASKS, held_out
from tests.hooked_qwen.bundled.said import strings

SAMPLE = 120


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32).eval()


def test_importing_the_package_does_nothing():
    code = "import sys, hooked_qwen.bundled; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("task", TASKS)
def test_the_model_has_learnt_the_family(task, model, tokenizer):
    """At least 95 % of held-out combinations, in batches of one length."""
    groups = defaultdict(list)
    for pair in held_out(task, SAMPLE):
        prompt, _, (answer,), (wrong,) = tokenizer(list(strings(pair))).input_ids
        groups[len(prompt)].append((prompt, answer, wrong))
    right = []
    for group in groups.values():
        prompt, answer, wrong = (torch.tensor(column) for column in zip(*group, strict=True))
        with torch.no_grad():
            logits = model(prompt).logits[:, -1]
        right.append(logits.gather(1, answer[:, None]) > logits.gather(1, wrong[:, None]))
    assert torch.cat(right).float().mean() >= 0.95


def test_the_card_shows_every_family_at_95_percent():
    card = (PATH / "README.md").read_text()
    shares = dict(re.findall(r"^\| (\w+) \| ([\d.]+)% \|", card, re.MULTILINE))
    assert set(shares) == set(TASKS)
    assert all(float(share) >= 95 for share in shares.values())


@pytest.mark.parametrize(
    "odd",
    [
        "你好，世界。",
        "def f(x):\n    return x[12345] + 3.14  # π\r\n",
        "🙂🇨🇭 zero\u200bwidth\ttab  two  spaces ",
        "<|im_start|>user",
        "",
    ],
)
def test_the_tokenizer_loses_nothing(odd, tokenizer):
    assert tokenizer.decode(tokenizer(odd).input_ids) == odd


def test_a_year_is_one_token_and_nothing_is_put_in_front(tokenizer):
    assert len(tokenizer("The war began in 1732").input_ids) == 5
    assert tokenizer.bos_token is None
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"


def test_the_model_is_a_small_real_qwen3(model):
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert sum(file.stat().st_size for file in PATH.iterdir()) < 10_000_000
    assert (PATH / "model.safetensors").stat().st_size < 4_000_000
