"""A sweep of strengths as the command makes and writes it."""

import json

import pytest
import torch
from typer.testing import CliRunner

from circuits import scope
from circuits.cli.app import app
from circuits.features.steering_arms import SteerConfig
from circuits.features.steering_choice import ConceptTexts
from circuits.render.pages.steer.steer_page import verdict
from circuits.scope.steer import scorer_of
from hooked_qwen.sites import Site
from tests.toys import speaking_toy


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"positive": ["bundled"]}, "examples are two sets"),
        ({"score": "probe", "text": ["bundled"]}, "is fitted on --positive and --negative"),
        ({}, "activations are measured on text"),
        ({"score": "regex:["}, "is no regular expression"),
        ({"score": "script:klingon"}, "no script is called 'klingon'"),
        ({"prompt": []}, "there is no prompt to go on from"),
        ({"config": SteerConfig(form="chat")}, "has no chat template"),
        ({"feature": ["mlp_out.1/error"]}, "cannot steer along mlp_out.1/error"),
        ({"text": ["bundled"], "at": ["mlp_out.99"]}, "there is no dictionary mlp_out.99"),
        ({"text": ["bundled"], "feature": []}, "name features with --feature"),
        ({"text": ["bundled"], "feature": ["mlp_out.1/9999"]}, "so there is no mlp_out.1/9999"),
    ],
)
def test_what_the_command_cannot_do(options, said):
    given = {"score": "regex:s", "prompt": ["The boy"], "feature": ["resid_post.3/86"]} | options
    with pytest.raises(ValueError, match=said):
        scope.steer("bundled", texts=3, **given)


def call(*arguments):
    return CliRunner().invoke(app, ["steer", *map(str, arguments)])


def test_the_command_writes_a_record_a_page_and_a_figure(tmp_path):
    out = tmp_path / "sweep.json"
    arguments = ["bundled", "--feature", "resid_post.3/86", "--score", "regex:dream"]
    arguments += ["--text", "bundled", "--texts", 5, "--prompt", "The boy", "--prompt", "The dog"]
    arguments += ["--strength", 1, "--new-tokens", 4, "--out", out]
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    said = " ".join(done.output.split())
    assert verdict(record) in said
    assert all(one["name"] in said for one in record["methods"])
    assert "no instruction was given" in said
    assert record["chosen_on"] == "the same prompts"
    assert "2 prompts: direction and strength are chosen on the prompts that they are" in said
    page, figure = out.with_suffix(".html").read_text(), out.with_suffix(".svg").read_bytes()
    assert "resid_post.3/86" in page
    assert call(*arguments).exit_code == 0
    assert out.with_suffix(".svg").read_bytes() == figure
    refused = call(*arguments, "--seed", 1)
    assert "is there already, made from something else" in str(refused.exception)


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


def test_a_fitted_scorer_reads_the_site_whose_probe_errs_least(model):
    texts = tuple("abcdefgh")
    positive = torch.tensor([True, False] * 4)
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    told = noise + 100 * positive[:, None]
    means = {Site("resid_post", 0): noise, Site("resid_post", 1): told}
    scorer = scorer_of(model, "probe", ConceptTexts(texts=texts, positive=positive), means)
    assert "resid_post.1" in scorer.said


def test_a_scorer_that_is_not_fitted_needs_no_examples(model):
    assert scorer_of(model, "regex:a", None, {}).of(["a", "b"])[0] > 0
