"""The bundled model's English: what the generator of its text and of prompts promises."""

import inspect
import re
from collections import defaultdict
from itertools import islice, pairwise

import pytest
from transformers import AutoTokenizer

from hooked_qwen.bundled import PATH
from hooked_qwen.bundled.atlas import REGIONS
from hooked_qwen.bundled.copying_sentences import link
from hooked_qwen.bundled.holdout import held
from hooked_qwen.bundled.language import TASKS, documents, held_out, pairs, rounds
from hooked_qwen.bundled.lexicon import words
from tests.hooked_qwen.bundled.said import bare, strings, vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def text():
    """2,000 documents as bare words, a space on either side of each."""
    return " " + " ".join(bare(text) for text in islice(documents(seed=77), 2000)) + " "


def prompts(task, n=400):
    return [pair for split in ("train", "test") for pair in pairs(task, n, split=split)]


def frame(task):
    """What no choice of words changes: the words that stand in the same template everywhere."""
    by_case = defaultdict(list)
    for pair in prompts(task):
        by_case[pair.case].append(set(bare(pair.clean).split()))
    return set.union(*(set.intersection(*group) for group in by_case.values()))


SHARED_CHOICES = {
    "agreement_nounpp": {"near", "behind", "beside", "by"},
    "pronoun": {"One", "Every", "day", "morning", "evening", "week", "he", "she"},
    "profession": {"One", "Every", "day", "morning", "evening", "week", "he", "she"},
    "brackets": set("()[]{}"),
}
"""Function words and signs that both halves draw on: they name no one and nothing."""


def test_the_same_seed_makes_the_same_text_and_another_seed_another():
    first, again, other = (list(islice(documents(seed=s), 50)) for s in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("task", TASKS)
def test_pairs_are_distinct_and_the_same_every_time(task):
    some = pairs(task, 300, split="train", seed=1)
    assert len(set(some)) == 300
    assert some == pairs(task, 300, split="train", seed=1)
    assert some != pairs(task, 300, split="train", seed=2)


@pytest.mark.parametrize("task", TASKS)
def test_the_splits_share_no_word_that_varies(task):
    train, test = (vocabulary(pairs(task, 400, split=split)) for split in ("train", "test"))
    assert train & test <= frame(task) | SHARED_CHOICES.get(task, set())


@pytest.mark.parametrize("task", TASKS)
def test_every_word_of_a_prompt_occurs_in_training_text(task):
    seen = set()
    wanted = vocabulary(prompts(task))
    for document in islice(documents(seed=5), 30_000):
        seen.update(bare(document).split())
        if wanted <= seen:
            return
    assert not wanted - seen


def test_asking_for_too_many_pairs_says_how_many_there_are():
    with pytest.raises(ValueError, match=r"1000000 pairs .* only 792 exist"):
        pairs("capital_of", 1_000_000, split="train")
    assert len(set(pairs("capital_of", 792, split="train"))) == 792


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="no task is called 'iou': choose one of agreement_simple"):
        pairs("iou", 1, split="train")
    with pytest.raises(ValueError, match="choose one of agreement_simple"):
        held_out("iou")
    unchecked = inspect.unwrap(pairs)  # with --jaxtyping-packages the annotation speaks first
    with pytest.raises(ValueError, match="no split is called 'dev': choose train or test"):
        unchecked("ioi", 1, split="dev")


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_one_token_and_pairs_align(task, tokenizer):
    for pair in prompts(task) + held_out(task):
        clean, patch, answer, wrong = tokenizer(list(strings(pair))).input_ids
        assert len(answer) == len(wrong) == 1
        assert answer != wrong
        assert len(clean) == len(patch)
        assert clean != patch


@pytest.mark.parametrize("task", TASKS)
def test_a_case_has_one_length_and_answers_continue_prompts_token_by_token(task, tokenizer):
    lengths = defaultdict(set)
    for pair in prompts(task):
        clean, answer, whole = tokenizer([pair.clean, pair.answer[0], pair.clean + pair.answer[0]])[
            "input_ids"
        ]
        assert whole == clean + answer
        lengths[pair.case].add(len(clean))
    assert all(len(found) == 1 for found in lengths.values())


def signature(task, pair):
    """The part of a held-out prompt that no document may have, as bare words."""
    clean, answer = bare(pair.clean).split(), pair.answer[0].strip()
    if task == "agreement_simple":
        return f"{clean[1]} {answer}"
    if task in ("agreement_rc", "agreement_within_rc"):
        return " ".join(clean[1:5])
    if task in ("greater_than", "capital_of", "two_step"):
        return " ".join(clean)
    if task == "pronoun":
        return " ".join(clean[:4])
    if task == "induction" and "and" not in clean[-1]:
        return f"{clean[-1]} {answer}"
    return " ".join([*clean, answer])


@pytest.mark.parametrize("task", TASKS)
def test_no_document_has_a_held_out_combination(task, text):
    found = [pair for pair in held_out(task) if f" {signature(task, pair)} " in text]
    assert not found


def test_no_sentence_joins_an_uncomposed_town_to_a_capital():
    towns = {pair.clean.split(" where ")[1].split()[0] for pair in held_out("two_step")}
    capitals = {region.capital for region in REGIONS}
    assert len(towns) == 48
    for document in islice(documents(seed=78), 2000):
        for sentence in document.split("."):
            said = set(bare(sentence).split())
            assert not (said & towns and said & capitals)


def test_the_rounds_say_no_held_out_link():
    pool = set(words().code_words)
    for text in islice(rounds(seed=5), 3000):
        said = text.split()
        assert not any(held(link(a, b)) for a, b in pairwise(said) if {a, b} <= pool)


def test_no_document_says_a_held_out_profession():
    jobs = {job.singular for job in words().professions}
    for text in islice(documents(seed=6), 4000):
        for name, job in re.findall(r"([A-Z]\w+) (?:was|worked as) a (\w+)", text):
            assert job not in jobs or not held(f"biography {name} {job}")
