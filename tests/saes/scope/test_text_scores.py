"""What texts are scored by: patterns, scripts, languages, probes, means, repetition."""

from math import nan

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode_prompt
from saes.scope.text_scores import (
    LabelledTextMeans,
    by_language,
    by_means,
    by_probe,
    by_regex,
    by_script,
    mean_of_texts,
    repetition,
)
from tests.toys import speaking_toy


def test_a_pattern_matches_or_not():
    found = by_regex("s[ai]t").of(["she sits", "run", "", "sat"])
    assert found.tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match=r"^\\b\( is no regular expression"):
        by_regex(r"\b(")


def test_a_pattern_is_told_as_it_was_typed_on_one_line():
    assert by_regex(r"\bIP\b").said == r"share of texts that match \bIP\b"
    long = by_regex(r"(?x) \bnetwork\b |" + "\n host" * 20)
    assert long.said.startswith(r"share of texts that match (?x) \bnetwork\b | host host")
    assert long.said.endswith("…")
    assert len(long.said) == len("share of texts that match ") + 60
    assert long.name.count("\n") == 20


@pytest.mark.parametrize(
    ("script", "text", "share"),
    [
        ("cjk", "学习 ab, 12", 0.5),
        ("han", "学かナ한", 0.25),
        ("kana", "学かナ한", 0.5),
        ("cjk", "学かナ한", 1.0),
        ("latin", "é123 ж", 0.5),
        ("cyrillic", "12 # 学", 0.0),
        ("cyrillic", "12 # ?", nan),
        ("cjk", "", nan),
    ],
)
def test_letters_are_counted_by_script(script, text, share):
    assert by_script(script).of([text]).tolist() == pytest.approx([share], nan_ok=True)


def test_languages_of_one_script_are_told_apart():
    texts = [
        "Then they went to the market and bought bread.",
        "Dann gingen sie auf den Markt und kauften Brot.",
        "Ensuite ils sont allés au marché et ont acheté du pain.",
        "12 # ?",
        "",
    ]
    every = torch.stack([by_language(code).of(texts) for code in ("en", "de", "fr")])
    assert every[:, :3].argmax(0).tolist() == [0, 1, 2]
    assert float(every[:, :3].amax(0).min()) > 0.9
    assert float(every[:, :3].amin(0).max()) < 0.05
    assert bool(every[:, 3:].isnan().all())
    both = by_language("en,de").of(texts)
    torch.testing.assert_close(both, every[0] + every[1], equal_nan=True)
    with pytest.raises(
        ValueError, match="no language has the code 'klingon': expected some of ace"
    ):
        by_language("en,klingon")


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


def test_what_is_fitted_says_which_kind_a_text_is(model):
    site = Site("resid_post", 1)
    texts = ["aaa", "aba", "baa", "zzz", "zyz", "yzz"]
    positive = torch.tensor([True] * 3 + [False] * 3)
    read = LabelledTextMeans(
        means=mean_of_texts(model, site, texts),
        positive=positive,
        site=site,
        reader=lambda some: mean_of_texts(model, site, some),
    )
    probe, means = by_probe(read), by_means(read)
    assert ((probe.of(texts) > 0.5) == positive).all()
    found = means.of(texts)
    # The means of both kinds are where they are said to be.
    assert float(found[positive].mean()) == pytest.approx(1, abs=1e-6)
    assert float(found[~positive].mean()) == pytest.approx(0, abs=1e-6)
    assert probe.of([""]).tolist() == means.of([""]).tolist() == [0]


def test_a_text_is_read_as_it_is_alone(model):
    site = Site("resid_post", 1)
    found = mean_of_texts(model, site, ["abc de", "", "Hello"])
    assert found[1].isnan().all()
    for row, text in ((0, "abc de"), (2, "Hello")):
        with capture(model, {site}) as seen:
            model(torch.tensor([encode_prompt(model.tokenizer, text)]))
        torch.testing.assert_close(found[row], seen[site][0].mean(0))


def test_repeated_runs_of_tokens_are_counted():
    assert repetition("abcdefgh") == 0
    # Of abab, baba and once more abab, one came before.
    assert repetition("ababab") == pytest.approx(1 / 3)
    assert repetition("abc") == 0


def test_repetition_is_the_share_of_runs_that_stood_before():
    assert repetition(list("abcdefgh")) == 0
    # abcd bcda cdab dabc abcd: the fifth run is the first.
    assert repetition(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repetition(["a"] * 10) == pytest.approx(1 - 1 / 7)
    assert repetition(["a"] * 3) == 0
