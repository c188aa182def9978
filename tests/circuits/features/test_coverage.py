"""Coverage of sets of texts as the command finds, writes and draws it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from circuits.features.coverage import CoverConfig, covered
from circuits.tasks import as_many_as_exist, make_for, names_for
from saes.scope.activity import activity_of
from saes.scope.item_results import correlation
from tests.toys import speaking_toy, toy, toy_suite, toy_tokenizer

TASKS = Path(__file__).parents[3] / "experiments" / "coverage" / "results"
SETS = {"one": ["abc de", "abc fgh", "abc de"], "two": ["what? no!", "Hello", "abc de.", "x y"]}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def suite():
    return toy_suite("resid_post.0", "mlp_out.1", dtype=torch.float32)


@pytest.fixture(scope="module")
def record(model, suite):
    results = {name: torch.rand(len(texts), 4).round() for name, texts in SETS.items()}
    return covered(model, suite, SETS, results=results, common=["x"])


def on(model, suite, texts):
    return set(activity_of(model, suite, texts).feature.tolist())


def test_numbers_are_those_of_the_sets_of_features(model, suite, record):
    common = on(model, suite, ["x"])
    one, two = (on(model, suite, texts) - common for texts in SETS.values())
    features = record["units"]["features"]
    assert (features["of"], features["removed"]) == (40 - len(common), len(common))
    assert features["on"] == len(one | two)
    found = features["sets"]["one"]
    assert (found["samples"], found["distinct"]) == (3, len(one))
    assert found["share"] == pytest.approx(len(one) / features["of"])
    assert found["redundancy"] == found["redundancy_at"] == pytest.approx(3 / len(one))
    assert record["at"] == 3
    assert features["sets"]["two"]["redundancy_at"] != features["sets"]["two"]["redundancy"]
    shared = len(one & two)
    expected = [[1, shared / len(one)], [shared / len(two), 1]]
    for row, wanted in zip(features["overlap"], expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-6)
    assert sum(found["by_dictionary"].values()) == len(on(model, suite, SETS["one"]))


def test_tokens_stand_beside_features(model, record):
    tokens = record["units"]["tokens"]
    rows = [{*model.tokenizer(text)["input_ids"]} for text in SETS["one"]]
    common = set(model.tokenizer("x")["input_ids"])
    assert tokens["sets"]["one"]["distinct"] == len(set().union(*rows) - common)
    assert tokens["of"] == len(model.tokenizer) - len(common)
    assert set(record["units"]) == {"features", "untrained", "tokens"}
    assert tokens["dealt_anew"]["low"][0][1] <= tokens["dealt_anew"]["high"][0][1]
    assert tokens["dealt_anew"]["mean"][0][0] is None


def test_what_is_common_goes_by_its_share(model, suite):
    common = ["abc de", "Hello", "what?"]
    config = CoverConfig(common_share=0.5)
    found = covered(model, suite, SETS, config, common=common)["units"]["features"]
    each = [on(model, suite, [text]) for text in common]
    often = {f for f in range(40) if sum(f in some for some in each) > 1.5}
    assert found["removed"] == len(often)


def test_subsets_by_each_unit_are_held_against_results(record):
    found = record["results"]["sets"]["two"]
    assert found["models"] == 4
    assert set(found["subsets"]) == {"features", "untrained", "tokens"}
    assert found["size"] == len(record["units"]["features"]["sets"]["two"]["subset"]["samples"])
    assert record["results"]["correlations"] is None


def test_how_long_texts_are_stands_beside_what_they_turn_on(model, suite):
    sets = {
        str(n): [f"{'abc what no '[: 3 * n]}{c}" for c in ("", "x", "y", "z")] for n in range(1, 5)
    }
    right = {name: torch.rand(4, 6).round() for name in sets}
    found = covered(model, suite, sets, results=right)["results"]
    rows = {
        name: [set(model.tokenizer(text)["input_ids"]) for text in texts]
        for name, texts in sets.items()
    }
    lengths = [sum(map(len, some)) / len(some) for some in rows.values()]
    by_results = [one["redundancy"] for one in found["sets"].values()]
    expected = correlation(lengths, by_results)
    assert expected is not None
    told = found["correlations"]["tokens of a text"]
    assert told["spearman"] == pytest.approx(expected.spearman, abs=1e-6)


def test_settings_and_sets_that_make_no_sense_are_refused(model, suite):
    with pytest.raises(ValueError, match="keep is 0.0"):
        CoverConfig(keep=0.0)
    with pytest.raises(ValueError, match="common_share is 1.0"):
        CoverConfig(common_share=1.0)
    with pytest.raises(ValueError, match="draws is 0"):
        CoverConfig(draws=0)
    with pytest.raises(ValueError, match="the set 'none' has no texts"):
        covered(model, suite, {"none": []})
    with pytest.raises(ValueError, match="results are of 'x', but the sets are one, two"):
        covered(model, suite, SETS, results={"x": torch.ones(1, 1)})
    with pytest.raises(ValueError, match="of 2 items, but 3 of its texts are read"):
        covered(model, suite, SETS, results={"one": torch.ones(2, 1)})


def test_where_few_pairs_exist_all_are_made():
    assert "induction" in names_for("bundled")
    n = len(as_many_as_exist("bundled", "capital_of", 100_000, split="test"))
    with pytest.raises(ValueError, match=f"only {n} exist"):
        make_for("bundled", "capital_of", n + 1, split="test")


def test_the_figure_of_twelve_sets_is_a_small_file(tmp_path):
    from circuits.render.charts.coverage import overlap_figure

    record = json.loads((TASKS / "bundled.json").read_text())
    overlap_figure(record, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size < 80_000
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert not any("left out" in text for text in texts)
    far = max(height for *_, height in record["units"]["features"]["tree"]["merges"])
    assert {"permuted", "distance, %", f"{100 * far:.0f}"} <= set(texts)
    overlap_figure({**record, "common": {"texts": 200, "share": 0.5}}, tmp_path / "b.svg")
    lines = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "b.svg").read_text())
    said = "left out: what more than 50% of 200 common texts turn on"
    assert said in " ".join(lines).replace("50 %", "50%")


def test_the_same_is_covered_on_another_device(other, suite):
    def found(device):
        model = toy(dtype=torch.float32).to(device)
        model.tokenizer = toy_tokenizer()
        return covered(model, suite, SETS)

    with other.complaining():
        there = found(other.name)
    other.agrees(there, found("cpu"))


def test_a_figure_is_the_same_on_every_run(record, tmp_path):
    from circuits.render.charts.coverage import growth_figure, overlap_figure

    for draw in (overlap_figure, growth_figure):
        first, second = tmp_path / "a.svg", tmp_path / "b.svg"
        draw(record, first)
        draw(record, second)
        assert first.read_bytes() == second.read_bytes()
        assert "one" in first.read_text()
        with pytest.raises(ValueError, match="a figure is written as"):
            draw(record, tmp_path / "a.gif")
    shown = first.read_text()
    assert "distinct tokens" in shown
    assert not math.isnan(record["units"]["features"]["halves"][0])


def test_growth_has_all_three_units_on_their_scales_and_a_legend(record, tmp_path, drawn):
    from circuits.render.charts.coverage import growth_figure

    growth_figure(record, tmp_path / "a.svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert {"features on", "features on, untrained", "distinct tokens"} <= set(texts)
    assert "95% of random orders" in texts
    assert f"subset chosen one by one, {100 * record['keep']:g}% of the whole" in texts
    assert all(texts.count(name) == 1 for name in record["sets"])
    trained, untrained, tokens, _ = drawn[0].axes
    assert trained.get_ylim() == untrained.get_ylim() != tokens.get_ylim()
