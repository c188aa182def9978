"""Prompt sets of our own making: what holds of every task, and what cannot be asked for."""

import inspect
import re
from collections import Counter

import pytest

from circuits.prompts import encode_prompts
from circuits.tasks import TASKS, make, words
from circuits.tasks.choice import Choice
from circuits.tasks.dealing import fits
from tests.circuits.tasks.english import CONTENT, N, full, made, tokenizer_of

every_task = pytest.mark.parametrize("task", TASKS)
both_splits = pytest.mark.parametrize("split", ["train", "test"])


@every_task
@both_splits
def test_every_set_is_accepted_with_positions_kept(task, split):
    prompts = made(task, split)
    encoded = encode_prompts(prompts, full(), positions="keep")
    assert len(encoded) == len({(p.clean, p.patch) for p in prompts}) == N
    choice, length = Choice(full(), split), encoded.clean.tokens.shape[1]
    assert all(fits(p, length, choice) for p in prompts)


@every_task
def test_splits_share_no_content_word(task):
    seen = {}
    for split in ("train", "test"):
        choice = Choice(full(), split)
        TASKS[task].templates(choice)
        prompts = made(task, split)
        text = " ".join(t for p in prompts for t in (p.clean, p.patch, *p.answer))
        seen[split] = choice.content, set(re.findall(r"\w+", text))
    (train, train_text), (test, test_text) = seen["train"], seen["test"]
    assert not train & test
    assert not train & test_text
    assert not test & train_text
    assert train & train_text
    assert test & test_text


@every_task
def test_pairs_are_dealt_evenly_over_all_cases(task):
    cases = {form.case for form in TASKS[task].templates(Choice(full(), "train"))}
    dealt = Counter(p.case for p in make(task, N + 1, full(), split="train"))
    assert dealt.keys() == cases
    assert max(dealt.values()) - min(dealt.values()) <= 1


@every_task
def test_the_same_arguments_give_the_same_pairs(task):
    assert make(task, N, full(), split="train") == made(task, "train")
    assert make(task, N, full(), split="train", seed=1) != made(task, "train")


def test_forms_of_another_length_are_left_out():
    shorter = tokenizer_of(CONTENT)
    shorter.add_tokens([" sat in"])
    prompts = make("ioi", N, shorter, split="train")
    encode_prompts(prompts, shorter, positions="keep")
    assert {p.case.split(", ")[1] for p in prompts} == {"when", "after", "then"}


def test_too_few_known_words_are_counted_in_the_message():
    known = ["old", "key", "keys", "book", "books", "letter", "letters"]
    assert len(make("agreement_simple", 4, tokenizer_of(known), split="train")) == 4
    adjectives, nouns = (len(entries[::2]) for entries in (words.ADJECTIVES, words.THINGS))
    message = (
        "5 pairs were asked for but the train split has only 4: the tokenizer knows only "
        f"1 of {adjectives} adjectives, 2 of {nouns} nouns as one token; ask for fewer"
    )
    with pytest.raises(ValueError, match=message):
        make("agreement_simple", 5, tokenizer_of(known), split="train")


def test_a_tokenizer_that_knows_no_word_is_told_so():
    with pytest.raises(ValueError, match="the train split has only 0: .*0 of"):
        make("induction", 1, tokenizer_of([]), split="train")


def test_an_unknown_task_lists_all():
    with pytest.raises(ValueError, match=f"no task is called 'sums': .*{', '.join(TASKS)}"):
        make("sums", 4, full(), split="train")


def test_an_unknown_split_names_both():
    unchecked = inspect.unwrap(make)  # with --jaxtyping-packages the annotation speaks first
    with pytest.raises(ValueError, match="no split is called 'dev': choose train or test"):
        unchecked("ioi", 4, full(), split="dev")


def test_no_pairs_at_all_cannot_be_asked_for():
    with pytest.raises(ValueError, match="0 pairs were asked for: ask for one or more"):
        make("ioi", 0, full(), split="train")


def test_every_task_says_what_it_asks_and_whose_it_is():
    for name, task in TASKS.items():
        assert task.name == name
        assert "->" in task.description
        assert "\n" not in task.description
        assert re.search(r"20\d\d", task.source)
