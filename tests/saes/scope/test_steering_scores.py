"""What texts and features are scored by: concepts, repetition, fluency, input and output scores."""

from math import nan

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode_prompt
from saes.scope.output_score import input_score, output_score, output_scores
from saes.scope.scorers import kind_of_scorer, unfitted
from saes.scope.steering_score import chosen, fluency, score, wanted
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
from saes.scope.usage import Peak
from tests.toys import speaking_toy, toy_hf, toy_suite, toy_tokenizer


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


def test_a_text_of_which_nothing_is_told_is_not_what_was_asked_for():
    for goal, of_known in (("more", [0.0, 0.7, 1.0]), ("less", [1.0, 0.3, 0.0])):
        found = wanted(torch.tensor([-1.0, 0.7, 2.0, nan]), goal).tolist()
        assert found == pytest.approx([*of_known, 0.0])


def test_scores_are_named_as_they_are():
    assert kind_of_scorer("regex:a:b") == ("regex", "a:b")
    for wrong in ("regex", "regex:", "probe:x", "length"):
        with pytest.raises(ValueError, match=r"there is no score .*expected regex:PATTERN"):
            kind_of_scorer(wrong)
    with pytest.raises(ValueError, match="no script is called 'runes': expected one of cjk"):
        by_script("runes")


def test_a_behaviour_is_a_score_of_a_texts_tokens():
    tokenizer = toy_tokenizer()
    scorer = unfitted("behaviour:repetition", tokenizer)
    assert scorer is not None
    texts = ["abcdeabcde", "abcdeabcdeabcde", "abcde", ""]
    expected = [repetition(encode_prompt(tokenizer, text)) for text in texts]
    assert scorer.of(texts).tolist() == expected
    assert expected[1] > expected[0] > 0
    assert scorer.said == "share of runs of four tokens that came before"
    with pytest.raises(ValueError, match="no behaviour is called 'politeness'"):
        unfitted("behaviour:politeness", tokenizer)
    assert unfitted("probe", tokenizer) is None


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


def test_a_text_is_as_fluent_as_the_plain_one_at_most():
    plain = torch.tensor([1.0, 1.0, 1.0, 1.0])
    nats = torch.tensor([0.5, 2.0, 1.0, torch.nan])
    repeated = torch.tensor([0.0, 0.0, 0.25, 0.0])
    found = fluency(nats, plain, repeated).tolist()
    assert found == pytest.approx([1.0, 0.36787944, 0.75, 0.0])


def test_both_count_in_one_number():
    assert score(torch.tensor([0.5, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])).tolist() == (
        pytest.approx([2 / 3, 1, 0])
    )
    assert wanted(torch.tensor([-1.0, 0.3, 2.0]), "less").tolist() == pytest.approx([1, 0.7, 0])


def test_no_prompt_chooses_what_it_is_judged_at():
    """The first arm does well on even prompts, the second on odd ones: judged, both do badly."""
    scores = torch.tensor([[1.0, 0.0] * 3, [0.0, 1.0] * 3])
    found = chosen(scores)
    assert found.arms == (0, 1)
    assert found.score.tolist() == [0.0] * 6
    few = chosen(scores[:, :3])
    assert few.arms == (0,)
    assert few.score.tolist() == [1.0, 0.0, 1.0]


def test_the_output_score_is_that_of_the_likeliest_promoted_token():
    p = torch.tensor([[0.5, 0.2, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    promoted = torch.tensor([[2, 1], [3, 0]])
    assert output_score(p.log(), promoted).tolist() == pytest.approx([0.75 * 0.2, 0.4])


def test_output_scores_raise_a_feature_at_the_last_token(model):
    """As a hook on the layer does, by ten times the largest activation there."""
    name, layer = "resid_post.1", 1
    suite = toy_suite(name, dtype=torch.float32)
    nodes = [Node(name, i) for i in (3, 8, 11)]
    promoted = torch.tensor([[1, 2], [30, 31], [9, 4]])
    found = output_scores(model, suite, nodes, promoted, prompt="abc de")
    plain, d = hook(toy_hf(dtype=torch.float32), name="toy").original_model, suite[name]
    ids = torch.tensor([encode_prompt(model.tokenizer, "abc de")])
    for node, tokens, expected in zip(nodes, promoted, found, strict=True):

        def raised(module, args, h, node=node):
            most = d.encode(h[:, -1:]).value.max()
            h = h.clone()
            h[:, -1] += 10 * most * d.W_dec[node.feature]
            return h

        handle = plain.model.layers[layer].register_forward_hook(raised)
        with torch.no_grad():
            p = plain(ids).logits[0, -1].softmax(-1)
        handle.remove()
        best = float(p[tokens].max())
        rank = int((p > best).sum())
        assert expected == pytest.approx((1 - rank / len(p)) * best, rel=1e-3, abs=1e-7)
    with pytest.raises(ValueError, match="the neutral prompt has no tokens"):
        output_scores(model, suite, nodes, promoted, prompt="")


def test_the_input_score_is_the_share_of_texts_with_a_promoted_token():
    peaks = [Peak(token=t, activation=1.0) for t in (1, 2, 7, 1)]
    assert input_score(peaks, torch.tensor([1, 9])) == 0.5
    assert input_score([], torch.tensor([1])) is None
