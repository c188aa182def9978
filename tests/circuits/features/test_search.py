"""Features by two sets of texts, in a text, by a token, by a label."""

import json

import pytest
import torch
from typer.testing import CliRunner

from circuits import scope
from circuits.cli.app import app
from circuits.cli.search import SHOWN
from circuits.features.card import logit_tokens
from circuits.features.named import Named
from circuits.features.search import by_contrast, by_label, by_token, in_text
from circuits.runs.pages import feature_pages
from hooked_qwen.load import load
from hooked_qwen.tokens import encode
from saes.suite import load_suite
from tests.circuits.printed import printed

PLURAL = ["The boys sit.", "The dogs run.", "The teachers laugh.", "The pilots wait."]
SINGULAR = ["The boy sits.", "The dog runs.", "The teacher laughs.", "The pilot waits."]


@pytest.fixture(scope="module")
def bundled():
    model, suite = load("bundled", device="cpu"), load_suite("bundled")
    return model, suite, Named(model, suite, {"resid_post.3/86": "dreams"})


def call(*arguments):
    return CliRunner().invoke(app, ["features", "search", *map(str, arguments)])


def test_what_promotes_a_token_has_the_score_of_its_card(bundled):
    model, suite, named = bundled
    card = logit_tokens(model, suite["resid_post.4"], [12]).fields(0, model.tokenizer)
    token, score = card["promoted"][0]
    every = sum(suite[name].n_features for name in suite)
    found = by_token(model, suite, token, named, top=every)["found"]
    (own,) = (one for one in found if one["feature"] == "resid_post.4/12")
    assert own["logits"] == pytest.approx(score, rel=2e-3)
    scores = [one["logits"] for one in found]
    assert scores == sorted(scores, reverse=True)


def test_no_other_feature_promotes_it_more(bundled):
    model, suite, named = bundled
    found = by_token(model, suite, " sit", named, top=3)["found"]
    (token,) = encode(model.tokenizer, " sit")
    name = "resid_post.4"
    gain = model.ln_final(torch.ones(1, 1, len(model.W_U)))[0, 0].detach()
    W = suite[name].W_dec.detach() * gain @ model.W_U.detach()
    assert float((W[:, token] - W.mean(-1)).max()) <= found[0]["logits"] * 1.001


def test_in_a_text_each_token_has_what_writes_most(bundled):
    model, suite, named = bundled
    record = in_text(model, suite, PLURAL[0], named, on_a_token=2)
    assert [one["token"] for one in record["tokens"]] == ["The", " boys", " sit", "."]
    wider = in_text(model, suite, PLURAL[0], named, on_a_token=600)
    for few, many in zip(record["tokens"], wider["tokens"], strict=True):
        assert few["features"] == many["features"][:2]
        sizes = []
        for one in many["features"]:
            name, index = one["feature"].split("/")
            sizes.append(abs(one["activation"]) * float(suite[name].W_dec[int(index)].norm()))
        assert sizes == pytest.approx(sorted(sizes, reverse=True), rel=1e-3)


def test_pages_of_features_are_found_beside_a_page(tmp_path):
    page = tmp_path / "found.html"
    assert feature_pages(page, ["a.1/2", "a.1/3"]) == {}
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "a.1-2.html").touch()
    assert feature_pages(page, ["a.1/2", "a.1/3"]) == {"a.1/2": "features/a.1-2.html"}
    (tmp_path / "features" / "suite.html").touch()
    assert feature_pages(page, ["a.1/2", "a.1/3"]) == {
        "a.1/2": "features/a.1-2.html",
        "a.1/3": "features/suite.html#feature=a.1%2F3",
    }


def test_two_sets_are_told_apart_by_what_is_on_in_one_alone(bundled):
    model, suite, named = bundled
    record = by_contrast(model, suite, PLURAL, SINGULAR, named, top=5)
    assert record["texts"] == {"positive": 4, "negative": 4}
    first = record["found"][0]
    assert first["on_positive"] - first["on_negative"] == pytest.approx(first["difference"])
    same = by_contrast(model, suite, PLURAL, PLURAL, named, top=5)
    assert {one["difference"] for one in same["found"]} == {0.0}


def test_labels_hold_all_words():
    names = {"a/1": "Plural subjects", "a/2": "subjects of verbs", "b/3": "years"}
    assert by_label(names, "SUBJECTS plural")["found"] == [
        {"feature": "a/1", "label": "Plural subjects"}
    ]
    assert by_label(names, "subjects", top=1)["holding_all"] == 2
    with pytest.raises(ValueError, match="no feature has a label here"):
        by_label({}, "x")


def test_the_command_writes_what_it_shows(tmp_path):
    for name, texts in (("plural", PLURAL), ("singular", SINGULAR)):
        lines = (json.dumps({"text": text}) for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sets = ["--positive", tmp_path / "plural.jsonl", "--negative", tmp_path / "singular.jsonl"]
    done = call("bundled", *sets, "--top", 4, "--texts", 3, "--out", tmp_path / "found.json")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["texts"] == {"positive": 3, "negative": 3}
    said = " ".join(done.output.split())
    assert "3 positive and 3 negative texts" in said
    assert all(one["feature"] in said for one in record["found"])
    assert "s.d." in said


def test_effects_on_two_sets_are_told_with_those_in_each_and_what_chance_gives():
    one = {"feature": "a/1", "label": "", "estimate": -0.3, "exact": -0.324, "interval": None,
           "texts_on": 2, "positive": 0.0, "negative": 0.324}  # fmt: skip
    record = {"metric": "m", "reference": "zero", "agreement": {"pearson": None}, "shuffles": 200,
              "random": {"mean_size_of_found": 1, "features": [], "mean_size": None}}  # fmt: skip
    said = {}
    for chance, found in ((None, None), (0.5, 0), (0.5, 0.25)):
        shown = {"chance": chance, "found": [one | {"by_chance": found}]}
        said[found] = " ".join(printed(SHOWN["effect"], record | shown).split())
    assert "by chance" not in said[None]
    assert "positive" not in said[None]
    assert "mean in positive texts less mean in negative ones" in said[0]
    assert "-0.324 – +0 +0.324 <0.005" in said[0]
    assert "+0.324 0.25" in said[0.25]


def test_the_command_shows_a_text_and_a_token():
    done = call("bundled", "--text", "The boys sit.")
    assert "boys" in done.output
    done = call("bundled", "--token", " sit", "--top", 2)
    assert done.exit_code == 0, done.output
    assert done.output.count("mlp_out") + done.output.count("resid_post") == 2


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "got none"),
        ({"text": "a", "token": " b"}, "got --text, --token"),
        ({"positive": ["bundled"]}, "takes --positive and --negative"),
        ({"token": " sits on"}, "is 2 tokens"),
        ({"label": "x"}, "no feature has a label"),
    ],
)
def test_what_cannot_be_looked_for_is_said(given, match):
    with pytest.raises(ValueError, match=match):
        scope.search("bundled", **given)
