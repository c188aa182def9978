"""What each verb for dictionaries does: opened, done, written; on two of the bundled ones."""

import dataclasses
import json
import shutil
from functools import partial
from itertools import islice

import pytest

from circuits import suites
from circuits.opening import load_model
from circuits.runs.overwrite import MADE_FROM
from circuits.suites import evaluate_suite, feature, suite_overview
from hooked_qwen.bundled import DICTIONARIES, language
from saes.evaluation.metrics import evaluate, evaluate_jointly, held_out_blocks
from saes.formats import ours
from saes.on_demand import load_all
from saes.suite import load_suite

NAMES = ("mlp_out.2", "resid_post.3")
TOKENS = 256


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites") / "dictionaries"
    for name in NAMES:
        shutil.copytree(DICTIONARIES / name, folder / name)
    ours.save_suite_index(folder, list(NAMES))
    return folder


def texts():
    return islice(language.documents(seed=3), 400)


def told_by(report_to):
    return lambda what, done, total, note="": report_to.append((what, done, total))


@pytest.fixture(scope="module")
def evaluated(suite, tmp_path_factory):
    """Two evaluations that differ in the seed, one with labelled texts, and what was told."""
    labelled = tmp_path_factory.mktemp("labelled") / "texts.jsonl"
    lines = [
        {"text": f"The {noun} {verb}", "label": verb}
        for noun in ("judge", "judges", "key", "keys", "surgeon", "surgeons")
        for verb in ("is", "are")
    ]
    labelled.write_text("\n".join(map(json.dumps, lines)))
    told = []
    run = partial(evaluate_suite, str(suite), "bundled", texts, TOKENS)
    return run(report=told_by(told)), run(seed=1, labelled=labelled), told


def test_an_evaluation_is_of_the_first_tokens_of_the_text(suite, evaluated):
    """The same figures from the parts that it is made of."""
    record, _, told = evaluated
    model = load_model("bundled")
    blocks = held_out_blocks(texts(), model, tokens=TOKENS)
    for quality, name in zip(
        evaluate(model, list(load_suite(suite).values()), blocks), load_suite(suite), strict=True
    ):
        found = dict(record["dictionaries"][name])
        assert set(found.pop("controls")) == {"untrained", "PCA"}
        assert found == dataclasses.asdict(quality)
    assert set(record["dictionaries"]) == set(NAMES)
    assert record["joint"]["dictionaries"] == 2
    assert "probes" not in record
    stages = list(dict.fromkeys(what for what, *_ in told))
    assert stages == ["loading", "evaluating", "all at once"]
    for stage in stages:
        done = [(done, total) for what, done, total in told if what == stage]
        assert done[0][0] == 0
        assert done[-1][0] == done[-1][1]


def test_transcoders_alone_are_put_in_the_place_of_their_mlps(tmp_path):
    """Beside an autoencoder that is in the joint splice and not in theirs."""
    names = ["mlp_in.3-mlp_out.3", "mlp_in.4-mlp_out.4", "resid_post.4"]
    for name in names:
        shutil.copytree(DICTIONARIES / name, tmp_path / name)
    ours.save_suite_index(tmp_path, names)
    record = evaluate_suite(str(tmp_path), "bundled", texts, TOKENS)
    model = load_model("bundled")
    blocks = held_out_blocks(texts(), model, tokens=TOKENS)
    expected = evaluate_jointly(model, load_all(tmp_path).of(_entries(tmp_path, names)), blocks)
    assert record["mlps"] == dataclasses.asdict(expected) | {"names": names[:2]}
    assert record["joint"]["dictionaries"] == 3
    for end in ("", "_zero", "_mean"):
        low, high = record["mlps"]["intervals"][f"kl{end}"]
        assert low <= record["mlps"][f"kl{end}"] <= high


def _entries(folder, names):
    return [load_all(folder).suite.files[name] for name in names if "-" in name]


def test_the_seed_draws_the_untrained_control_and_nothing_else(evaluated):
    first, other, _ = evaluated
    for name in NAMES:
        one, two = (dict(record["dictionaries"][name]) for record in (first, other))
        controls = [found.pop("controls") for found in (one, two)]
        assert one == two
        assert controls[0]["PCA"] == controls[1]["PCA"]
        assert controls[0]["untrained"]["fvu"] != controls[1]["untrained"]["fvu"]
    assert first["joint"] == other["joint"]


def test_with_labelled_texts_every_dictionary_is_probed(evaluated):
    _, record, _ = evaluated
    assert set(record["probes"]) == set(NAMES)
    for found in record["probes"].values():
        assert found["labels"] == ["are", "is"]
        assert found["train"] + found["test"] == 12


WHICH = "resid_post.3/17"


def test_a_card_is_written_as_record_and_page_and_its_examples_serve_the_next(suite, tmp_path):
    told, source = [], {"text": ["here"]}
    run = partial(feature, str(suite), tokens=1024, out=tmp_path, made_from=source)
    card, paths = run(which=WHICH, model="bundled", texts=texts, report=told_by(told))
    assert [path.name for path in paths] == ["resid_post.3-17.json", "resid_post.3-17.html"]
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(card | {MADE_FROM: source}))
    assert (card["feature"], card["dictionary"], card["index"]) == (WHICH, "resid_post.3", 17)
    assert "<html" in paths[1].read_text(encoding="utf-8")
    (examples,) = tmp_path.glob("examples-*")
    first = {p: p.stat().st_mtime_ns for p in examples.iterdir()}
    before = paths[0].read_bytes()
    again, _ = run(which=WHICH, model="bundled", texts=texts)
    assert again == card
    assert paths[0].read_bytes() == before
    run(which="mlp_out.2/3", model="bundled", texts=texts)
    assert {p: p.stat().st_mtime_ns for p in examples.iterdir()} == first
    run(which="mlp_out.2/3", model="bundled", texts=texts, seed=1, force=True)
    assert len(list(tmp_path.glob("examples-*"))) == 2


def test_a_card_of_something_else_stays_and_is_told_before_a_model_is_loaded(suite, tmp_path):
    path = tmp_path / "resid_post.3-17.json"
    path.write_text(json.dumps({MADE_FROM: {"text": ["elsewhere"]}}))
    before = path.read_bytes()
    run = partial(feature, str(suite), model="no/such-model", texts=texts, out=tmp_path, tokens=64)
    with pytest.raises(ValueError, match=r"resid_post\.3-17\.json is there already"):
        run(which=WHICH, made_from={"text": ["here"]})
    with pytest.raises(ValueError, match="no feature is called 'mlp_out.9/1'"):
        run(which="mlp_out.9/1")
    with pytest.raises(ValueError, match="has features 0 to"):
        run(which="mlp_out.2/99999")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_the_page_of_a_suite_is_replaced_by_the_same_only(suite, tmp_path):
    run = partial(suite_overview, str(suite), "bundled", texts, tmp_path, tokens=1024)
    path = run(made_from={"text": ["here"]})
    first = path.read_bytes()
    title = f"<title>Features of {load_model('bundled').cfg.model_name}"
    assert title in first.decode()
    assert run(made_from={"text": ["here"]}).read_bytes() == first
    other = partial(suite_overview, str(suite), "no/such-model", texts, tmp_path, tokens=1024)
    with pytest.raises(ValueError, match=r"suite\.html is there already, a page of something else"):
        other(made_from={"text": ["elsewhere"]})
    assert path.read_bytes() == first


def test_what_moved_comes_with_a_warning():
    with pytest.warns(DeprecationWarning, match="load_model is in circuits.opening: import it"):
        assert suites.load_model is load_model
