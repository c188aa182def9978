"""The bundled model and its English: what the generator promises, and what the model learnt."""

import inspect
import re
import subprocess
import sys
from collections import defaultdict
from itertools import islice, pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hooked_qwen.bundled import PATH
from hooked_qwen.bundled.atlas import REGIONS
from hooked_qwen.bundled.copying_sentences import link
from hooked_qwen.bundled.holdout import held, shares
from hooked_qwen.bundled.language import TASKS, documents, held_out, pairs, rounds
from hooked_qwen.bundled.lexicon import words

SAMPLE = 120


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def text():
    """2,000 documents as bare words, a space on either side of each."""
    return " " + " ".join(bare(text) for text in islice(documents(seed=77), 2000)) + " "


def bare(text):
    return re.sub(r"[\s.,:;!?]+", " ", text).strip()


def prompts(task, n=400):
    return [pair for split in ("train", "test") for pair in pairs(task, n, split=split)]


def strings(pair):
    return pair.clean, pair.patch, *pair.answer, *pair.wrong


def vocabulary(some):
    return {word for pair in some for text in strings(pair) for word in bare(text).split()}


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


def test_importing_the_package_does_nothing():
    code = "import sys, hooked_qwen.bundled; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


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


def test_pairs_are_dealt_as_evenly_as_the_cases_allow():
    assert shares([5, 100, 100], 65) == [5, 30, 30]
    assert shares([2, 2], 4) == [2, 2]


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


def test_every_word_of_the_lexicon_is_one_token(tokenizer):
    every = words()
    forms = [f for noun in every.things + every.people for f in (noun.singular, noun.plural)]
    verbs = every.thing_verbs + every.person_verbs + every.relative_verbs + every.auxiliaries
    forms += [form for verb in verbs for form in (verb.singular, verb.plural)]
    forms += [person.name for person in every.persons] + [town.name for town in every.towns]
    forms += [name for region in REGIONS for name in (region.name, region.capital)]
    forms += [*every.objects, *every.places, *every.events, *every.code_words, *every.letters]
    forms += [str(year) for year in every.years]
    split = [form for form in forms if len(tokenizer(f" {form}").input_ids) != 1]
    assert not split


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
