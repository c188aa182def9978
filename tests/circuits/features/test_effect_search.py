"""Features by what they do to a metric: of texts, of prompts; held against plain hooks."""

import json
from dataclasses import replace

import pytest
import torch

from circuits import scope
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.features.effect_search import by_effect, text_analysis
from circuits.features.named import Named
from circuits.metrics.metric import on_clean
from circuits.metrics.texts import encoded_texts, text_metric
from hooked_qwen.nodes import Node
from tests.circuits.conftest import call
from tests.toys import speaking_toy, toy_prompts, toy_suite

TEXTS = ("abba runs", "a dog sits.", "cab or jazz", "big fox!", "lazy quiz", "we vex him")
POSITIVE = torch.tensor([True, True, True, False, False, False])
SITES = ("mlp_out.0", "resid_post.1", "resid_post.2")


def toy_case(family="qwen3"):
    """Texts of several lengths are padded, which takes float32."""
    model = speaking_toy(family, torch.float32)
    return model, toy_suite(*SITES, dtype=torch.float32)


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def case(request):
    return toy_case(request.param)


def loss_per_text(model, text, tokens=None):
    """Mean log-probability, by the Hugging Face model as it runs with its hooks."""
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = model.original_model(ids).logits[0].log_softmax(-1)
    if tokens is None:
        return float(logits[:-1].gather(1, ids[0, 1:, None]).mean())
    return float(logits[:, tokens].logsumexp(-1).mean())


def ablated_loss(model, suite, node, text):
    """The same with a feature taken out of a layer's output by a plain hook on the block."""
    site, dictionary = node.site, suite[node.site]
    kind, _, layer = site.partition(".")
    block = model.original_model.model.layers[int(layer)]
    module = block if kind == "resid_post" else block.mlp

    def take_out(_, __, output):
        x = output[0] if isinstance(output, tuple) else output
        value = dictionary.encode(x).of(torch.tensor([int(node.feature)]))
        moved = x - value * dictionary.W_dec[int(node.feature)]
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = module.register_forward_hook(take_out)
    try:
        return loss_per_text(model, text)
    finally:
        handle.remove()


def test_metrics_of_a_text_are_those_of_the_plain_model(case):
    model, suite = case
    prompts = encoded_texts(TEXTS, model.tokenizer, longest=64)
    rows = torch.arange(len(TEXTS))
    (ab,) = model.tokenizer("ab", add_special_tokens=False)["input_ids"]
    (e,) = model.tokenizer("e", add_special_tokens=False)["input_ids"]
    for name, tokens in (("next-token", None), ("token:ab", [ab]), ("token:ab|e", [ab, e])):
        metric = text_metric(name, model, suite.fitting(model), prompts)
        found = on_clean(metric, torch.zeros(len(TEXTS), 1), rows)
        expected = [loss_per_text(model, text, tokens) for text in TEXTS]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_effects_are_those_of_a_plain_hook_and_rank_the_features(case):
    model, suite = case
    analysis = text_analysis(model, suite, TEXTS, "next-token", estimator="exact")
    record = by_effect(
        analysis, Named(model, suite, {}), metric="next-token", positive=POSITIVE, top=6
    )
    for row in (*record["found"], *record["random"]["features"]):
        node = Node.parse(row["feature"])
        moved = [
            ablated_loss(model, suite, node, text) - loss_per_text(model, text) for text in TEXTS
        ]
        effect = sum(moved[:3]) / 3, sum(moved[3:]) / 3
        assert row["positive"] == pytest.approx(effect[0], abs=1e-4)
        assert row["negative"] == pytest.approx(effect[1], abs=1e-4)
        assert row["exact"] == pytest.approx(effect[0] - effect[1], abs=1e-4)
    sizes = [abs(row["estimate"]) for row in record["found"]]
    assert sizes == sorted(sizes, reverse=True)
    assert record["random"]["mean_size"] <= record["random"]["mean_size_of_found"]
    names = [row["feature"] for row in (*record["found"], *record["random"]["features"])]
    assert len(set(names)) == len(names)


def test_an_estimate_stands_beside_the_exact_effect_and_the_interval_holds_it(case):
    model, suite = case
    analysis = text_analysis(model, suite, TEXTS, "next-token")
    record = by_effect(
        analysis, Named(model, suite, {}), metric="next-token", positive=POSITIVE, top=5
    )
    every = (*record["found"], *record["random"]["features"])
    pairs = torch.tensor([[row["estimate"], row["exact"]] for row in every])
    pearson = float(pairs.T.corrcoef()[0, 1])
    assert record["agreement"]["pearson"] == pytest.approx(pearson, abs=1e-4)
    for row in record["found"]:
        low, high = row["interval"]
        assert low <= row["exact"] <= high
        assert 0 <= row["by_chance"] <= record["features_on"]


def test_texts_read_at_their_own_length_have_the_effects_of_padded_ones(case):
    model, suite = case
    own = text_analysis(model, suite, TEXTS, "next-token")
    padded = replace(own, edited=None)
    widths = [state.n_positions for state in own.states]
    assert widths == own.prompts.clean.mask.sum(1).tolist()
    assert {state.n_positions for state in padded.states} == {max(widths)}
    records = [
        by_effect(analysis, Named(model, suite, {}), metric="x", positive=POSITIVE, top=6)
        for analysis in (own, padded)
    ]
    for one, other in zip(*(r["found"] for r in records), strict=True):
        assert one["feature"] == other["feature"]
        for key in ("estimate", "exact", "positive", "negative"):
            assert one[key] == pytest.approx(other[key], abs=1e-5)


def test_texts_of_no_kind_are_prompts_with_one_mean():
    model = speaking_toy()
    suite = toy_suite(*SITES)
    config = DiscoverConfig(reference="patch", positions="sum", batch_size=1, estimator="patching")
    analysis = Analysis.of(model, suite, toy_prompts(4), config)
    record = by_effect(analysis, Named(model, suite, {}), metric="logit-difference", top=3)
    assert record["texts"] == {"prompts": 4}
    assert record["chance"] is None
    assert {row["by_chance"] for row in record["found"]} == {None}
    assert "positive" not in record["found"][0]


@pytest.mark.parametrize(
    ("metric", "texts", "match"),
    [
        ("perplexity", TEXTS, "no metric of a text is called 'perplexity': expected 'next-token'"),
        ("token:abc", TEXTS, "'abc' in the metric 'token:abc' is 2 tokens"),
        ("next-token", ("ab cd", "a"), "text 2 has 1 tokens: an effect on a text needs two"),
    ],
)
def test_what_is_no_metric_of_texts_is_said(metric, texts, match):
    model, suite = toy_case()
    with pytest.raises(ValueError, match=match):
        text_analysis(model, suite, texts, metric)


def test_a_contrast_of_effects_needs_texts_of_both_kinds():
    model, suite = toy_case()
    analysis = text_analysis(model, suite, TEXTS, "next-token")
    with pytest.raises(ValueError, match="needs two texts of each kind at least"):
        by_effect(
            analysis,
            Named(model, suite, {}),
            metric="x",
            positive=torch.tensor([True] * 5 + [False]),
        )


PLURAL = ("The boys sit.", "The dogs run.", "The teachers laugh.")
SINGULAR = ("The boy sits.", "The dog runs.", "The teacher laughs.")


@pytest.fixture
def sets(tmp_path):
    for name, texts in (("plural", PLURAL), ("singular", SINGULAR)):
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    return ["--positive", tmp_path / "plural.jsonl", "--negative", tmp_path / "singular.jsonl"]


def test_the_command_ranks_by_a_metric_and_replaces_nothing_else(sets, tmp_path, fails):
    out, page = tmp_path / "found.json", tmp_path / "found.html"
    given = ["features", "search", "bundled", *sets, "--out", out, "--page", page]
    done = call(*given, "--metric", "token: sit", "--top", 3)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert record["how"] == "effect"
    assert len(record["found"]) == len(record["random"]["features"]) == 3
    said = " ".join(done.output.split())
    assert "of 3 random features on in as many texts" in said
    before = out.read_bytes(), page.read_bytes()
    assert "found.json is there already, made from something else" in fails(*given, "--top", 4)
    out.unlink()
    assert "found.html is there already, a page of something else" in fails(*given, "--top", 4)
    assert call(*given, "--metric", "token: sit", "--top", 3).exit_code == 0
    assert (out.read_bytes(), page.read_bytes()) == before
    assert call(*given, "--top", 4, "--force").exit_code == 0
    assert json.loads(out.read_text())["how"] == "contrast"


def test_the_command_ranks_by_prompts(tmp_path):
    prompt = {
        "clean": "The keys near the cabinet",
        "patch": "The key near the cabinet",
        "answer": " are",
        "wrong": " is",
    }
    (tmp_path / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    found = scope.search("bundled", prompts=tmp_path / "prompts.jsonl", top=3)
    assert (found["metric"], found["reference"]) == ("logit-difference", "patch")
    assert found["found"][0]["interval"] is None
    with pytest.raises(ValueError, match="a metric is of two sets of texts or of prompts"):
        scope.search("bundled", token=" sit", metric="next-token")
