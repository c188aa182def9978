"""Probes find planted labels, and what they report is what a plain reckoning gives."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hooked_qwen.hooks import capture
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.evaluation.probing import Labelled, logistic, probe, read_labelled
from tests.toys import SIZES, random_dictionary, speaking_toy, toy_hf, toy_tokenizer

D = SIZES["hidden_size"]
PRE, POST = Site("resid_pre", 0), Site("resid_post", 0)
PLANTED = 7
LETTERS, MARK = "cdefghijklmn", "Q"


@pytest.fixture(scope="module")
def model():
    return speaking_toy("qwen3")


@pytest.fixture(scope="module")
def examples():
    """Random letters of several lengths; those of the label `with` hold one more letter, Q."""
    generator = np.random.default_rng(0)
    made = []
    for i in range(80):
        text = list(generator.choice(list(LETTERS), size=generator.integers(4, 9)))
        if i % 2:
            text[generator.integers(len(text))] = MARK
        made.append(Labelled("".join(text), "with" if i % 2 else "without"))
    return made


@torch.no_grad()
def values(model, text, site):
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    with capture(model, [site]) as seen:
        model(tokens)
    return seen[site][0]


def firing(model, width=20, **features):
    """A dictionary of the embeddings: each feature fires on some letters, as strongly as is said.

    Such as `f7={"Q": 2.0}`; it is off on all other letters of the tests.
    """
    dictionary = random_dictionary(
        DictionarySpec(source=PRE, target=PRE, architecture="relu"), width=width
    )
    letters = LETTERS + "".join({c: 0 for on in features.values() for c in on})
    rows = values(model, letters, PRE)
    inverse = torch.linalg.pinv(torch.cat([rows, torch.ones(len(rows), 1)], dim=1))
    for name, on in features.items():
        wanted = torch.tensor([on.get(c, -1.0) for c in letters], dtype=rows.dtype)
        solution, i = inverse @ wanted, int(name[1:])
        dictionary.W_enc[i], dictionary.b_enc[i] = solution[:-1], solution[-1]
    return dictionary


@pytest.fixture(scope="module")
def planted(model):
    """A random dictionary whose feature 7 fires on the letter Q alone."""
    return firing(model, f7={MARK: 1.0})


def marked(seed, one, other, n=40, *, lengths=(4, 9)):
    """Texts of random letters in which some were replaced: those of `one`, or those of `other`."""
    generator = np.random.default_rng(seed)
    made = []
    for i in range(n):
        put = one if i % 2 else other
        letters = list(generator.choice(list(LETTERS), size=generator.integers(*lengths)))
        places = generator.permutation(len(letters))[: len(put)]
        for place, letter in zip(places, put, strict=True):
            letters[place] = letter
        made.append(Labelled("".join(letters), "one" if i % 2 else "other"))
    return made


def accuracy(result, reads, k):
    (found,) = [p for p in result.probes if p.reads == reads and (p.chosen and len(p.chosen)) == k]
    return found


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_the_feature_that_is_the_label_is_found_and_enough(model, planted, examples, pool):
    result = probe(model, planted, examples, pool=pool)
    best = accuracy(result, "features", 1)
    assert best.chosen == [PLANTED]
    assert best.accuracy == 1
    assert accuracy(result, "coordinates", 1).accuracy < 1
    assert result.labels == ["with", "without"]
    assert (result.train, result.test, result.majority) == (40, 40, 0.5)


def test_labels_that_mean_nothing_are_told_no_better_than_chance(model, planted, examples):
    generator = np.random.default_rng(1)
    shuffled = generator.permutation([e.label for e in examples])
    relabelled = [Labelled(e.text, str(la)) for e, la in zip(examples, shuffled, strict=True)]
    for found in probe(model, planted, relabelled).probes:
        low, high = found.interval
        assert low <= found.accuracy <= high
        assert 0.2 < found.accuracy < 0.8


def test_each_kind_of_probe_comes_in_its_sizes(model, planted, examples):
    result = probe(model, planted, examples)
    sizes = [(p.reads, p.chosen and len(p.chosen)) for p in result.probes]
    by_k = [(r, k) for r in ("features", "coordinates", "untrained") for k in (1, 2, 5, 16)]
    assert sizes == [*by_k, ("residual", None)]
    ranked = {p.reads: p.chosen for p in result.probes}
    for one in result.probes[:-1]:
        assert one.chosen == ranked[one.reads][: len(one.chosen)]
    record = asdict(result)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_narrow_dictionary_has_no_probe_of_more_features_than_it_has(model, examples):
    narrow = random_dictionary(DictionarySpec(source=POST, target=POST, k=2), width=3)
    result = probe(model, narrow, examples)
    assert [len(p.chosen) for p in result.probes if p.reads == "features"] == [1, 2]


@pytest.mark.parametrize("d", [1, 3, 30])
def test_the_regression_minimises_its_loss(d):
    """Against scipy on the loss written out; with more coordinates than texts too."""
    generator = np.random.default_rng(d)
    z, y = generator.normal(size=(20, d)), generator.integers(2, size=20)

    def loss(v):
        sign = 2 * y - 1
        return np.logaddexp(0, -sign * (z @ v[:-1] + v[-1])).mean() + v[:-1] @ v[:-1] / 40

    expected = minimize(loss, np.zeros(d + 1), tol=1e-12)
    w, b = logistic(torch.from_numpy(z), torch.from_numpy(y) > 0)
    found = np.append(w.numpy(), b.numpy())
    assert loss(found) <= expected.fun + 1e-10
    np.testing.assert_allclose(found, expected.x, atol=1e-4)


def test_the_probe_of_a_transcoder_reads_its_source(model, examples):
    spec = DictionarySpec(source=Site("mlp_in", 1), target=Site("mlp_out", 1), k=5)
    result = probe(model, random_dictionary(spec), examples)
    assert {p.reads for p in result.probes} == {
        "features",
        "coordinates",
        "untrained",
        "residual",
    }


@pytest.mark.parametrize(
    ("pool", "one", "other"),
    [("max", "P", "QQ"), ("mean", "QQQ", "Q")],
    ids=["one strong or two weak", "three or one"],
)
def test_what_is_told_apart_is_what_is_pooled(model, pool, one, other):
    """A feature is 2 on P and 1 on Q: sums are alike in the first case, peaks in the second."""
    dictionary = firing(model, f7={"P": 2.0, "Q": 1.0})
    texts = marked(0, one, other, lengths=(6, 10))
    told = {
        name: accuracy(probe(model, dictionary, texts, pool=name), "features", 1)
        for name in ("max", "mean")
    }
    assert (told[pool].chosen, told[pool].accuracy) == ([PLANTED], 1)
    (unlike,) = (found for name, found in told.items() if name != pool)
    assert unlike.chosen != [PLANTED]
    assert unlike.accuracy < 1


def test_how_many_texts_run_together_changes_nothing(model, planted, examples):
    """Texts of one length run together, and each gets what is its own."""
    told = []
    together = probe(model, planted, examples, report=lambda *now: told.append(now))
    assert (told[0], told[-1]) == ((0, 80), (80, 80))
    few = probe(model, planted, examples, texts_per_pass=3)
    assert [p.chosen for p in few.probes] == [p.chosen for p in together.probes]
    assert [p.accuracy for p in few.probes] == [p.accuracy for p in together.probes]


def test_norm_outliers_are_left_out_of_the_pool():
    """Half of the texts of each label hold a token that would drown what tells them apart."""
    hf = toy_hf("qwen3")
    with torch.no_grad():
        hf.model.embed_tokens.weight[toy_tokenizer()("Z")["input_ids"]] *= 1000
    model = hook(hf, tokenizer=toy_tokenizer(), name="toy")
    texts = [
        Labelled(f"{e.text}Z" if i % 4 < 2 else e.text, e.label)
        for i, e in enumerate(marked(0, "Q", ""))
    ]
    dictionary = firing(model, f7={"Q": 1.0, "Z": 1000.0})
    f = dictionary.encode(values(model, "QZ", PRE)).dense()[:, PLANTED]
    assert f.tolist() == pytest.approx([1, 1000], rel=1e-3)
    for pool in ("mean", "max"):
        best = accuracy(probe(model, dictionary, texts, pool=pool), "features", 1)
        assert (best.chosen, best.accuracy) == ([PLANTED], 1)


def test_large_values_are_not_preferred_and_what_is_constant_comes_last(model):
    """By the difference of means in standard deviations: of means alone it would be feature 1."""
    loud = dict.fromkeys(LETTERS[::2], 1e4)
    dictionary = firing(model, width=5, f1=loud, f2={"Q": 1e-3})
    for i in (0, 3, 4):
        dictionary.W_enc[i], dictionary.b_enc[i] = 0.0, float(i)
    found = accuracy(probe(model, dictionary, marked(0, "Q", "")), "features", 5)
    assert found.chosen[:2] == [2, 1]
    assert set(found.chosen[2:]) == {0, 3, 4}


def test_half_of_each_label_trains_and_the_seed_says_which(model, planted, examples):
    """Ten of one label and twenty of the other: five and ten are left to test on."""
    some = [e for e in examples if e.label == "with"][:10]
    some += [e for e in examples if e.label == "without"][:20]
    first, again, other = (probe(model, planted, some, seed=seed) for seed in (0, 0, 1))
    assert (first.train, first.test) == (15, 15)
    assert first.majority == pytest.approx(10 / 15)
    assert first == again
    assert [p.chosen for p in first.probes] != [p.chosen for p in other.probes]


def test_labelled_texts_are_read_from_json_lines(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "ein Ñ", "label": "x"}\n\n{"text": "b", "label": "y", "more": 1}\n')
    assert read_labelled(path) == [Labelled("ein Ñ", "x"), Labelled("b", "y")]
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    assert read_labelled(path) == [Labelled("ein Ñ", "x"), Labelled("b", "y")]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"text": "a"}', '{"text": "", "label": "x"}', '{"text": "a", "label": 1}']
)
def test_a_line_that_is_not_a_labelled_text_is_named(tmp_path, line):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r'texts.jsonl, line 2: expected .* "text" .* "label"'):
        read_labelled(path)


def test_texts_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no labelled texts at .*absent.jsonl"):
        read_labelled(tmp_path / "absent.jsonl")


def test_a_probe_needs_two_labels_with_four_texts_each(model, planted, examples):
    with pytest.raises(ValueError, match="two labels apart, and the texts have 1: with"):
        probe(model, planted, [e for e in examples if e.label == "with"])
    with pytest.raises(ValueError, match="two labels apart, and the texts have 0: none"):
        probe(model, planted, [])
    with pytest.raises(ValueError, match="2 texts labelled 'with': expected at least 4"):
        probe(model, planted, examples[::2] + examples[1:5:2])
