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
from saes.evaluation import probing
from saes.evaluation.probing import Labelled, logistic, probe, read_labelled
from tests.conftest import SIZES, random_dictionary, toy_hf, toy_tokenizer

D = SIZES["hidden_size"]
PRE, POST = Site("resid_pre", 0), Site("resid_post", 0)
PLANTED = 7
LETTERS, MARK = "cdefghijklmn", "Q"


@pytest.fixture(scope="module")
def model():
    return hook(toy_hf("qwen3"), tokenizer=toy_tokenizer(), name="toy")


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


@pytest.fixture(scope="module")
def planted(model, examples):
    """A random dictionary whose feature 7 fires on the letter Q alone."""
    spec = DictionarySpec(source=PRE, target=PRE, architecture="relu")
    dictionary = random_dictionary(spec, width=20)
    rows = values(model, LETTERS + MARK, PRE)
    x = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    wanted = torch.tensor([-1.0] * len(LETTERS) + [1.0], dtype=rows.dtype)
    solution = torch.linalg.pinv(x) @ wanted
    dictionary.W_enc[PLANTED], dictionary.b_enc[PLANTED] = solution[:-1], solution[-1]
    return dictionary


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


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_texts_are_pooled_each_by_itself_in_their_own_order(
    model, planted, examples, pool, monkeypatch
):
    seen, told = {}, []
    whole = probing._standardised

    def spy(z, train):
        seen[len(seen)] = z
        return whole(z, train)

    monkeypatch.setattr(probing, "_standardised", spy)
    monkeypatch.setattr(probing, "TEXTS_PER_PASS", 3)
    probe(model, planted, examples, pool=pool, report=lambda *now: told.append(now))
    for place in (0, 1, 37, 79):
        x, after = (values(model, examples[place].text, site) for site in (PRE, POST))
        for pooled, rows in ((seen[0], planted.encode(x).dense()), (seen[1], x), (seen[3], after)):
            expected = rows.amax(0) if pool == "max" else rows.mean(0)
            torch.testing.assert_close(pooled[place], expected, atol=1e-5, rtol=1e-5)
    assert told[0] == (0, 80)
    assert told[-1] == (80, 80)


def test_norm_outliers_are_left_out_of_the_pool(examples):
    hf = toy_hf("qwen3")
    with torch.no_grad():
        hf.model.embed_tokens.weight[toy_tokenizer()("Z")["input_ids"]] *= 1000
    model = hook(hf, tokenizer=toy_tokenizer(), name="toy")
    dictionary = random_dictionary(DictionarySpec(source=POST, target=POST, k=5))
    texts = [*(e.text for e in examples[:6]), "Zcdef"]
    pooled = probing._pooled(model, dictionary, texts, "mean", lambda done, total: None)
    expected = values(model, "Zcdef", POST)[1:].mean(0)
    torch.testing.assert_close(pooled["coordinates"][-1], expected, atol=1e-6, rtol=1e-6)


def test_the_ranking_is_by_the_difference_of_means_in_standard_deviations(model):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    positive = torch.arange(40) % 2 == 0
    z[positive, 4] -= 3
    z[:, 1] *= 100
    z[:, 2] = 5
    train = torch.arange(40) < 20
    standard = probing._standardised(z, train)
    assert (standard[:, 2] == 0).all()
    ranked = probing._ranked(standard[train], positive[train])
    assert ranked[0] == 4
    x, p = z[train].numpy(), positive[train].numpy()
    with np.errstate(invalid="ignore"):
        gap = np.abs(x[p].mean(0) - x[~p].mean(0)) / x.std(0)
    assert ranked == np.argsort(-np.nan_to_num(gap), kind="stable").tolist()


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


def test_half_of_each_label_trains():
    positive = torch.arange(30) < 10
    train = probing._half(positive, 0)
    assert (int(train[positive].sum()), int(train[~positive].sum())) == (5, 10)
    assert torch.equal(train, probing._half(positive, 0))
    assert not torch.equal(train, probing._half(positive, 1))


def test_the_probe_of_a_transcoder_reads_its_source(model, examples):
    spec = DictionarySpec(source=Site("mlp_in", 1), target=Site("mlp_out", 1), k=5)
    result = probe(model, random_dictionary(spec), examples)
    assert {p.reads for p in result.probes} == {
        "features",
        "coordinates",
        "untrained",
        "residual",
    }


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
