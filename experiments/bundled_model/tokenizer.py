"""Train the bundled model's tokenizer: byte-level BPE on our own text, any text in, none lost."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from hooked_qwen.bundled.language import TASKS, documents, held_out, pairs

END = "<|endoftext|>"
VOCABULARY = 4096
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,4}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's own pattern but for ` ?\\p{N}{1,4}` in place of `\\p{N}`: a year is one token."""

DOCUMENTS_READ = 12_000
WORD_WEIGHT = 30
"""Each word is read this many times over, so that the rare ones become whole tokens too."""


def train_tokenizer() -> Tokenizer:
    """The tokenizer, with every word of the generator one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_reading(), trainer)
    return tokenizer


def vocabulary_words() -> list[str]:
    """Every word, space included, of many documents and of prompts of each task."""
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    texts = list(islice(documents(seed=1), DOCUMENTS_READ))
    for task in TASKS:
        sample = [pair for half in ("train", "test") for pair in pairs(task, 500, split=half)]
        texts += [text for pair in sample + held_out(task) for text in (pair.clean, *pair.answer)]
    return sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files AutoTokenizer reads.

    The class is the plain fast one: transformers 5 rebuilds a `Qwen2Tokenizer` with Qwen's own
    pattern, which would cut years into digits.
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _reading() -> Iterator[str]:
    yield from islice(documents(seed=2), DOCUMENTS_READ)
    for word in vocabulary_words():
        yield from [word] * WORD_WEIGHT
