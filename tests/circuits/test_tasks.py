"""Prompt sets of our own making: each task's answers against a solver that reads the text."""

import inspect
import re
import string
from collections import Counter
from functools import cache

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from circuits.prompts import encode_prompts
from circuits.tasks import TASKS, make, names, words
from circuits.tasks.choice import Choice
from circuits.tasks.dealing import fits

FUNCTION_WORDS = words.entries("""
    the that is are near behind beside by and to went came met sat at in gave handed brought passed
    he she such a good capital city of called knows ended started having year
""")
OPENERS = ["The", "When", "After", "Then", "While", "Everyone", "In", "'s"]
LISTS = [value for module in (words, names) for value in vars(module).values()]
CONTENT = [
    word
    for entries in LISTS
    if isinstance(entries, tuple)
    for entry in entries
    for word in ([entry] if isinstance(entry, str) else entry)
]
NUMBER = {form: i for pair in (*words.THINGS, *words.PEOPLE, *words.VERBS)
          for i, form in enumerate(pair)} | {"is": 0, "are": 1}  # fmt: skip
N = 24


def tokenizer_of(content: list[str]) -> Qwen2Tokenizer:
    """Qwen's own class, with a token for each of these words behind a space."""
    whole = [f"Ġ{word}" for word in [*FUNCTION_WORDS, *content] if word.isalpha()] + OPENERS
    merges = {(word[:i], word[i]): None for word in whole for i in range(1, len(word))}
    pieces = ["<|endoftext|>", "Ġ", "Ċ", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = dict.fromkeys([*pieces, *map("".join, merges)])
    return Qwen2Tokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=list(merges))


@cache
def full() -> Qwen2Tokenizer:
    return tokenizer_of(CONTENT)


@cache
def made(task: str, split: str):
    return make(task, N, full(), split=split)


def number_agrees(subject: int):
    return lambda text, answer: NUMBER[text.split()[subject]] == NUMBER[answer.strip()]


def is_named_once(text: str, answer: str) -> bool:
    said = Counter(re.findall(r"\w+", text))
    return [n for n in (*names.MEN, *names.WOMEN) if said[n] == 1] == [answer.strip()]


def is_beyond(text: str, answer: str) -> bool:
    year, century = map(int, re.findall(r"\d+", text))
    ends = [int(f"{century}{answer}{unit}"[:4]) for unit in range(10)]
    first_is_end = "ended in the year" in text.split(",")[0]
    return max(ends) < year if first_is_end else min(ends) > year


def is_next_argument(text: str, answer: str) -> bool:
    arguments = re.findall(r"\w+", text.splitlines()[0])[3:]
    return arguments[len(re.findall(r":param \w+:", text))] == answer.strip()


def closes(text: str, answer: str) -> bool:
    opened = []
    for mark in re.findall(r"[][(){}]", text):
        opened = [*opened, mark] if mark in "([{" else opened[:-1]
    return opened[-1] + answer in ("()", "[]", "{}")


def is_value(text: str, answer: str) -> bool:
    return dict(re.findall(r">>> (\w+) = (\d)", text))[text.split()[-1]] == answer


def is_pronoun_of_name(text: str, answer: str) -> bool:
    return (text.split()[1] in names.MEN) == (answer == " he")


def is_capital(text: str, answer: str) -> bool:
    said = re.findall(r"\w+", text)
    return [city for country, city in words.CAPITALS if country in said] == [answer.strip()]


def came_next(text: str, answer: str) -> bool:
    *listed, before, last = text.split()[1:]
    return answer.strip() == listed[listed.index(last) + 1] and before in listed


SOLVERS = {
    "agreement_simple": number_agrees(-1),
    "agreement_nounpp": number_agrees(1),
    "agreement_rc": number_agrees(1),
    "agreement_within_rc": number_agrees(-1),
    "ioi": is_named_once,
    "greater_than": is_beyond,
    "docstring": is_next_argument,
    "brackets": closes,
    "variable": is_value,
    "pronoun": is_pronoun_of_name,
    "capital_of": is_capital,
    "induction": came_next,
}
every_task = pytest.mark.parametrize("task", TASKS)
both_splits = pytest.mark.parametrize("split", ["train", "test"])


@every_task
@both_splits
def test_answers_are_right_for_clean_and_wrong_ones_for_patch(task, split):
    right = SOLVERS[task]
    for p in made(task, split):
        assert all(right(p.clean, a) for a in p.answer)
        assert all(right(p.patch, w) for w in p.wrong)
        assert not any(right(p.clean, w) for w in p.wrong)


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


@pytest.mark.parametrize(
    "task", ["agreement_simple", "agreement_nounpp", "agreement_rc", "brackets", "pronoun"]
)
def test_a_constant_answer_scores_chance(task):
    prompts = made(task, "test")
    assert Counter(p.answer for p in prompts) == Counter(p.wrong for p in prompts)


def test_a_liking_for_late_years_scores_chance():
    prompts = made("greater_than", "train")
    assert sum(p.answer > p.wrong for p in prompts) == N / 2


@every_task
def test_the_same_arguments_give_the_same_pairs(task):
    assert make(task, N, full(), split="train") == made(task, "train")
    assert make(task, N, full(), split="train", seed=1) != made(task, "train")


def tokenizer_with_years(digits: str) -> PreTrainedTokenizerFast:
    """Every word a token, and of a number what `digits` matches."""
    numbers = [f"{i:02}" for i in range(100)]
    vocabulary = {token: i for i, token in enumerate(["<unk>", *numbers])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pattern = Regex(rf" ?[A-Za-z]+|{digits}| |[^ ]")
    raw.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", pad_token="<unk>")


def test_a_tokenizer_that_takes_years_whole_is_told_so():
    with pytest.raises(ValueError, match="only 0: no answer is one token .*; ask for another task"):
        make("greater_than", 6, tokenizer_with_years(r"\d+"), split="train")


def test_years_are_asked_for_in_two_digits_where_those_are_one_token():
    tokenizer = tokenizer_with_years(r"\d\d")
    prompts = make("greater_than", 6, tokenizer, split="train")
    encode_prompts(prompts, tokenizer, positions="keep")
    for p in prompts:
        assert {len(text) for text in (*p.answer, *p.wrong)} == {2}
        assert all(is_beyond(p.clean, a) for a in p.answer)
        assert all(is_beyond(p.patch, w) for w in p.wrong)


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


def test_as_many_pairs_can_be_had_as_the_message_says():
    places = [place for pair in words.CAPITALS[1:9:2] for place in pair]
    tokenizer = tokenizer_of(places)
    with pytest.raises(ValueError, match="40 pairs were asked for but the test split has only 36"):
        make("capital_of", 40, tokenizer, split="test")
    assert len({(p.clean, p.patch) for p in make("capital_of", 36, tokenizer, split="test")}) == 36


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


def test_word_lists_are_long_enough_and_without_repeats():
    for entries in LISTS:
        if isinstance(entries, tuple):
            assert len(set(entries)) == len(entries)
    assert min(map(len, (words.THINGS, words.PEOPLE, names.MEN, names.WOMEN))) >= 120
