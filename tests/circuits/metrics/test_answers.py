"""The metric of a prompt set: answers as tokens, the model's own where none is named."""

import dataclasses

import pytest
import torch

from circuits.metrics.answers import (
    MOST,
    SHARE,
    clean_logits,
    likeliest,
    metric_of,
    preference_of,
    with_own_answers,
)
from circuits.metrics.readout import Readout
from circuits.prompts import Prompt, encode_prompts
from hooked_qwen.forward import last_logits
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from tests.toys import shared_toy, speaking_toy, toy_hf, toy_prompts, toy_suite, toy_tokenizer


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


def pair(answer, wrong=("y",), clean="caxc", patch="cbxc"):
    return Prompt(clean=clean, patch=patch, answer=tuple(answer), wrong=tuple(wrong))


def in_tokens(*prompts):
    """As the toy's tokenizer reads them: a token a letter, but for "ab"."""
    return encode_prompts(prompts, toy_tokenizer(), positions="sum")


def id_of(text):
    return toy_tokenizer().convert_tokens_to_ids(text)


@pytest.mark.parametrize(("p", "n"), [([0.96, 0.03, 0.01], 1), ([0.5, 0.3, 0.2], 3)])
def test_a_model_s_own_answers_are_the_fewest_that_are_likely(p, n):
    tokens, shares = likeliest(torch.tensor(p).log())
    assert tokens == list(range(n))
    assert shares == pytest.approx([x / sum(p[:n]) for x in p[:n]])
    assert len(likeliest(torch.zeros(50))[0]) == 10


def test_prompts_without_an_answer_get_the_model_s_own(model):
    prompts = toy_prompts(n=4)
    bare = dataclasses.replace(
        prompts, answer_ids=((), *prompts.answer_ids[1:]), wrong_ids=((), *prompts.wrong_ids[1:])
    )
    found = with_own_answers(model, bare)
    best = int(clean_logits(model, prompts)[0].argmax())
    assert found.answer_ids[0][0] == best
    assert found.answer_ids[1:] == prompts.answer_ids[1:]
    assert sum(found.answer_weights[0]) == pytest.approx(1)
    assert with_own_answers(model, prompts) is prompts


def test_the_metric_is_that_of_the_tokenizers_own_call(begins):
    hf = toy_hf(dtype=torch.float32)
    model = hook(hf, tokenizer=begins, name="toy")
    prompt = Prompt(clean="caxc", patch="cbxc", answer=("x",), wrong=("y",))
    x, y = (begins.convert_tokens_to_ids(t) for t in "xy")
    found = {}
    for bos in ("auto", "always", "never"):
        encoded = encode_prompts([prompt], begins, positions="keep", bos=bos)
        metric = metric_of("logit-difference", model, encoded)
        found[bos] = float(metric(last_logits(model, encoded.clean), torch.arange(1)))
    reference = toy_hf(dtype=torch.float32)(torch.tensor([begins("caxc")["input_ids"]])).logits
    expected = float((reference[0, -1, x] - reference[0, -1, y]).detach())
    assert found["auto"] == pytest.approx(expected, rel=1e-4)
    assert found["never"] != pytest.approx(expected, rel=1e-2)


def test_an_answer_that_the_model_does_not_have_is_named():
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["other"])
    model = hook(toy_hf(dtype=torch.float32), tokenizer=tokenizer, name="toy")
    prompt = Prompt(clean="cab", patch="xab", answer=("other",), wrong=("y",))
    encoded = encode_prompts([prompt], tokenizer, positions="keep")
    with pytest.raises(ValueError, match=r"the token 'other' has number 60, but toy embeds 60"):
        metric_of("logit-difference", model, encoded)


def test_the_metric_of_several_tokens_is_that_of_plain_transformers():
    hf, tokens = toy_hf(), toy_tokenizer()
    prompts = in_tokens(pair(["cde"], ["cdf", "cdgh"], "xy", "zy"))
    plain = hf(torch.tensor([tokens("xycd")["input_ids"]])).logits[0, -1].detach()
    e, f, g = (tokens(x)["input_ids"][0] for x in "efg")
    expected = plain[e] - (plain[f] + plain[g]) / 2
    model = shared_toy()
    metric = metric_of("logit-difference", model, prompts)
    found = metric(clean_logits(model, prompts), torch.tensor([0]))
    assert float(found) == pytest.approx(float(expected), abs=1e-9)
    logp = metric_of("log-probability", model, prompts)(
        clean_logits(model, prompts), torch.tensor([0])
    )
    assert float(logp) == pytest.approx(float(plain.log_softmax(-1)[e]), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_own_answers_reach_the_share_and_one_fewer_would_not(seed):
    logits = 4 * torch.randn(60, generator=torch.Generator().manual_seed(seed))
    p = logits.double().softmax(-1)
    tokens, shares = likeliest(logits)
    held = [float(p[i]) for i in tokens]
    assert held == sorted(map(float, p), reverse=True)[: len(tokens)]
    assert sum(held) >= SHARE or len(tokens) == MOST
    assert sum(held[:-1]) < SHARE
    assert shares == pytest.approx([one / sum(held) for one in held])


def test_a_vocabulary_smaller_than_the_most_is_all_of_it():
    tokens, shares = likeliest(torch.zeros(3))
    assert sorted(tokens) == [0, 1, 2]
    assert shares == pytest.approx([1 / 3] * 3)


def test_own_answers_are_told_from_given_ones(model):
    """Of two prompts one names its answer: it keeps it, with the same weight for each."""
    prompts = in_tokens(pair(["x", "z"]), pair([], []))
    found = with_own_answers(model, prompts)
    tokens, shares = likeliest(clean_logits(model, prompts)[1])
    assert found.own == {1}
    assert found.answer_ids == ((id_of("x"), id_of("z")), tuple(tokens))
    assert found.answer_weights == ((0.5, 0.5), tuple(shares))
    texts = tuple(toy_tokenizer().decode([i]) for i in tokens)
    assert found.answer_texts == (("x", "z"), texts)
    assert [p.answer for p in found.prompts] == [("x", "z"), texts]
    logits = clean_logits(model, prompts)
    (_, value) = preference_of(found)(logits, torch.arange(2)).tolist()
    expected = sum(w * float(logits[1, i]) for i, w in zip(tokens, shares, strict=True))
    assert value == pytest.approx(expected - float(logits[1].mean()), abs=1e-4)


def test_a_space_that_right_and_wrong_share_is_read_as_prompt(model):
    """With a tokenizer that has no ` x`: the next token after the space tells."""
    inside = in_tokens(pair([" x"], [" y"]))
    before = in_tokens(pair(["x"], ["y"], "caxc ", "cbxc "))
    assert inside.answer_ids == before.answer_ids == ((id_of("x"),),)
    values = [
        float(metric_of("logit-difference", model, p)(clean_logits(model, p), torch.arange(1)))
        for p in (inside, before, in_tokens(pair(["x"], ["y"])))
    ]
    assert values[0] == values[1] != values[2]


def test_answers_of_several_tokens_are_their_mean_and_their_sum(model):
    """Mean of logits, and log of summed probabilities; the order of answers does not count."""
    both, turned = in_tokens(pair(["x", "z"])), in_tokens(pair(["z", "x"]))
    logits = clean_logits(model, both)
    x, z, y = (id_of(text) for text in "xzy")
    expected = {
        "logit-difference": (logits[0, x] + logits[0, z]) / 2 - logits[0, y],
        "log-probability": logits[0].log_softmax(-1)[[x, z]].logsumexp(0),
    }
    for name, value in expected.items():
        for prompts in (both, turned):
            found = metric_of(name, model, prompts)(logits, torch.arange(1))
            assert float(found) == pytest.approx(float(value), abs=1e-5)


def test_a_divergence_is_from_the_clean_run_of_the_set(model):
    prompts = toy_prompts(n=5)
    metric, rows = metric_of("kl", model, prompts), torch.arange(5)
    clean, patch = clean_logits(model, prompts), last_logits(model, prompts.patch)
    assert metric(clean, rows).abs().max() < 1e-5
    expected = (clean.softmax(-1) * (clean.log_softmax(-1) - patch.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(metric(patch, rows), expected, atol=1e-4, rtol=1e-4)


def test_clean_logits_are_of_each_prompt_whatever_runs_beside_it(model):
    """More prompts than one pass takes, of two lengths."""
    prompts = in_tokens(*(pair(["x"], ["y"], "cax" * n, "cbx" * n) for n in [1, 3] * 20))
    found = clean_logits(model, prompts)
    assert found.shape[0] == 40
    for i in (0, 1, 31, 32, 39):
        alone = last_logits(model, in_tokens(prompts.prompts[i]).clean)
        torch.testing.assert_close(found[i], alone[0], atol=1e-4, rtol=1e-4)


def first_logit(logits, rows):
    return logits[:, 0]


def test_a_metric_of_the_user_s_own_is_called_as_it_is(model):
    prompts = toy_prompts(n=3)
    logits, rows = clean_logits(model, prompts), torch.tensor([2, 0])
    found = metric_of(first_logit, model, prompts)(logits[rows], rows)
    assert torch.equal(found, logits[rows, 0])
    own = preference_of(prompts)
    assert metric_of(own, model, prompts) is own


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda logits, rows: logits, r"gave \(2, 60\) for logits of shape \(2, 60\): .*\(2,\)"),
        (lambda logits, rows: 3.0, r"gave float for logits of shape \(2, 60\)"),
        (lambda logits, rows: logits[:, 0].sum(), r"gave \(\) for logits"),
        (lambda logits, rows: logits[:, 0].detach(), "has no gradient: write it in torch"),
    ],
)
def test_a_metric_that_is_none_is_told_what_is_wrong(model, metric, message):
    prompts = toy_prompts(n=2)
    logits = clean_logits(model, prompts).requires_grad_()
    with pytest.raises(ValueError, match=message):
        metric_of(metric, model, prompts)(logits, torch.arange(2))


def test_a_metric_of_a_site_needs_the_suite(model):
    prompts, site = toy_prompts(n=2), Site("mlp_out", 1)
    probe = Readout(site=site, direction=torch.ones(24))
    for chosen in ("feature:mlp_out.1/3", probe):
        with pytest.raises(ValueError, match=r"mlp_out.1.* is of a site: give the suite too"):
            metric_of(chosen, model, prompts)
    suite = toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)
    for chosen in ("feature:mlp_out.1/3", probe):
        assert metric_of(chosen, model, prompts, suite).site == site


def test_a_metric_that_a_run_only_names_is_asked_for(model):
    with pytest.raises(ValueError, match="metric is mine, a Python function that the run"):
        metric_of("python:mine", model, toy_prompts(n=1))
