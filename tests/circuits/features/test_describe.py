"""Features described and the descriptions judged, exported, shown on cards."""

import json
import re
from itertools import islice
from pathlib import Path
from shutil import copytree

import pytest
import torch

from circuits import scope
from circuits.features.asking import asked, marked_text
from circuits.features.describe import describe_features, items_of, labels_in
from circuits.features.explanations import read_explanations
from circuits.features.labels import Label, read_labels, scored, write_labels
from circuits.features.terminal import label_lines
from circuits.runs.label_run import export_labels
from hooked_qwen.hooks import capture
from hooked_qwen.load import load
from hooked_qwen.nodes import Node
from hooked_qwen.notices import Notice
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.texts import texts_of
from hooked_qwen.tokens import token_blocks
from saes.formats.finding import place_of
from saes.formats.ours import save_suite_index
from saes.scope.contexts import ContextConfig, read_contexts
from saes.scope.held_out import SplitConfig, split_contexts
from saes.suite import load_suite
from tests.circuits.conftest import call
from tests.circuits.features.test_explanation_exports import LABELS

SITE = "resid_post.3"
SPLIT = SplitConfig(shown=4, judged=5)
TOKENS = 8192


@pytest.fixture(scope="module")
def opened():
    model, suite = load("bundled", device="cpu"), load_suite("bundled")
    contexts = read_contexts(
        model, suite, [SITE], texts_of(["bundled"])(), config=ContextConfig(tokens=TOKENS)
    )
    enough = (contexts[SITE].counts() >= 14).nonzero().flatten().tolist()
    return model, suite, contexts, [Node(SITE, i) for i in enough[:4]]


def described(opened, answer, **more):
    model, suite, contexts, nodes = opened
    nodes = more.pop("nodes", nodes)
    given = {"explain": lambda shown: "words", "by": "model toy", "judged_by": "model toy"}
    given |= {"judge": asked(answer), "config": SPLIT, **more}
    return describe_features(model, suite, contexts, nodes, **given)


def n_asked(prompt):
    return int(re.search(r"list of (\d+) numbers", prompt)[1])


def knows(opened):
    """A judge that looks every passage up, whatever the description."""
    model, _, contexts, nodes = opened
    truth = {}
    for node in nodes:
        split = split_contexts(contexts[SITE], int(node.feature), SPLIT)
        for kind, items in items_of(split, node, SPLIT.seed).items():
            for item in items:
                text = marked_text(item.passage, model.tokenizer, marks=kind == "fuzzing")
                truth.setdefault(text, {})[node] = item.right

    def judge(question):
        # Of which feature the question is: the one that all its passages are of.
        of = set.intersection(*(set(truth[text]) for text in question.texts))
        return [truth[text][min(of)] for text in question.texts]

    return judge


def test_who_always_says_yes_has_a_half_by_every_description(opened):
    record = described(opened, lambda prompt: str([1] * n_asked(prompt)))
    for feature in record["features"]:
        for scores in feature["scores"].values():
            assert {s["balanced_accuracy"] for s in scores.values()} == {0.5}
    for summary in record["summary"].values():
        assert summary["own"]["mean"] == 0.5
        assert summary["own - another feature"]["mean"] == 0.0


def test_who_knows_the_truth_has_one(opened):
    record = described(opened, str, judge=knows(opened))
    for feature in record["features"]:
        for kind in ("detection", "fuzzing"):
            assert feature["scores"][kind]["own"]["balanced_accuracy"] == 1.0
            assert feature["scores"][kind]["own"]["f1"] == 1.0
            assert feature["scores"][kind]["own"]["asked"] == 10


def test_right_and_wrong_stand_in_an_order_of_each_features_own(opened):
    record = described(opened, lambda prompt: str([1] * n_asked(prompt)))
    for kind in ("detection", "fuzzing"):
        orders = [tuple(i["right"] for i in f["judged"][kind]) for f in record["features"]]
        assert len(set(orders)) > 1


def test_an_explainer_sees_what_is_not_judged_and_every_feature_gets_anothers_words(opened):
    _, _, contexts, nodes = opened
    seen, said = [], iter("abcd")
    record = described(
        opened,
        lambda prompt: str([1] * n_asked(prompt)),
        explain=lambda shown: (seen.append(shown), next(said))[1],
    )
    for node, shown in zip(nodes, seen, strict=True):
        split = split_contexts(contexts[SITE], int(node.feature), SPLIT)
        held = {p.tokens for p in (*split.on, *split.off, *split.wrong)}
        assert not held & {p.tokens for p in shown}
    pairs = [
        (f["descriptions"]["own"], f["descriptions"]["another feature"]) for f in record["features"]
    ]
    assert sorted(own for own, _ in pairs) == sorted(other for _, other in pairs) == list("abcd")
    assert all(own != other for own, other in pairs)
    assert {f["descriptions"]["nothing"] for f in record["features"]} == {""}
    assert all("→" in f["descriptions"]["written rule"] for f in record["features"])


def test_a_lone_feature_needs_another_one_beside_it(opened):
    node, other, *_ = opened[3]
    with pytest.raises(ValueError, match="one feature alone has no other"):
        described(opened, lambda prompt: "[1]", nodes=[node])
    record = described(opened, lambda prompt: "[1]", nodes=[node], beside=[other])
    assert len(record["features"]) == 1
    assert record["summary"]["detection"]["own"]["answered"] == 0


def test_what_cannot_be_described_is_said(opened):
    contexts = opened[2]
    dead = int((contexts[SITE].counts() == 0).nonzero()[0])
    with pytest.raises(ValueError, match="none of 1 features is on in enough contexts"):
        described(opened, str, nodes=[Node(SITE, dead)])
    with pytest.raises(ValueError, match="the judge gave 0 verdicts on 5 passages"):
        described(opened, str, judge=lambda question: [])
    with pytest.raises(ValueError, match="or draw some of one dictionary"):
        scope.describe("bundled", text=["bundled"])
    with pytest.raises(ValueError, match=r"there is no dictionary resid_post.9: expected one of"):
        scope.describe("bundled", text=["bundled"], site="resid_post.9")


def test_scores_stand_beside_labels_and_readers_of_before_see_the_words(opened, tmp_path):
    record = described(opened, lambda prompt: str([1] * n_asked(prompt)))
    labels = labels_in(record)
    write_labels(labels, tmp_path / "labels.json")
    assert read_labels(tmp_path / "labels.json") == labels
    plain = json.loads((tmp_path / "labels.json").read_text())
    for key, label in labels.items():
        assert (plain[key]["text"], plain[key]["by"]) == ("words", "model toy")
        assert label.scores["detection"]["balanced_accuracy"] == 0.5
        assert set(label.scores["fuzzing"]["controls"]) == {
            "another feature",
            "nothing",
            "written rule",
        }
    assert "scores" not in json.dumps(
        write_labels({"a.1/2": Label(text="x")}, tmp_path / "b.json")
        or json.loads((tmp_path / "b.json").read_text())
    )
    (tmp_path / "c.json").write_text('{"a.1/2": {"text": "x", "scores": 3}}')
    with pytest.raises(ValueError, match=r"the scores of a.1/2 are 3, expected an object"):
        read_labels(tmp_path / "c.json")


def test_a_card_says_who_named_it_and_how_well(opened):
    record = described(opened, lambda prompt: str([1] * n_asked(prompt)))
    (key, label), *_ = labels_in(record).items()
    card = scored({"feature": key, "label": "words"}, {key: label})
    assert card["label_by"] == "model toy"
    lines = label_lines(card)
    assert lines[0] == "named by model toy"
    assert lines[1].startswith("detection 0.50 (0.")
    assert "another feature 0.50" in lines[1]
    # A name of the graph's own is not the label's.
    assert scored({"feature": key, "label": "else"}, {key: label}) == {
        "feature": key,
        "label": "else",
    }


def tokens_on(opened):
    """At how many tokens each feature is on, of every text row read by itself."""
    model, suite, *_ = opened
    rows = islice(token_blocks(texts_of(["bundled"])(), model.tokenizer, length=256), TOKENS // 256)
    dictionary, found = suite.fitting(model)[SITE], 0
    for row in rows:
        with torch.no_grad(), capture(model, {Site.parse(SITE)}) as seen:
            model(row[None])
        (x,) = seen.values()
        told = mean_weights(x, torch.ones_like(x[..., 0], dtype=torch.bool)) > 0
        found += ((dictionary.encode(x).dense() > 0) & told[..., None]).sum((0, 1))
    return found.tolist()


def test_delphis_scores_are_of_every_passage(opened, tmp_path):
    record = described(opened, lambda prompt: str([1] * n_asked(prompt)))
    (tmp_path / "described.json").write_text(json.dumps(record))
    export_labels(
        labels_in(record), "delphi", tmp_path / "out", described=tmp_path / "described.json"
    )
    assert read_explanations(tmp_path / "out").keys() == labels_in(record).keys()
    for kind, folder in (("detection", "detection"), ("fuzzing", "fuzz")):
        files = sorted((tmp_path / "out" / "scores" / folder).iterdir())
        assert len(files) == 4
        assert int(files[0].stem.split("latent")[-1]) == int(opened[3][0].feature)
        rows = json.loads(files[0].read_text())
        assert len(rows) == 10
        # The fields that delphi's result_analysis reads.
        for row in rows:
            assert len(row["str_tokens"]) == len(row["activations"]) == 32
            assert row["correct"] == (row["prediction"] == row["activating"])
            assert (row["distance"] == -1) == (not row["activating"])
        hits = sum(r["activating"] for r in rows)
        assert hits == 5, kind
    counts = torch.load(tmp_path / "out/log/hookpoint_firing_counts.pt", weights_only=True)
    assert list(counts) == ["layers.3"]
    assert counts["layers.3"].tolist() == tokens_on(opened)
    run = json.loads((tmp_path / "out/run_config.json").read_text())
    assert (run["hookpoints"], run["scorers"]) == (["layers.3"], ["detection", "fuzz"])
    (tmp_path / "else.json").write_text("{}")
    with pytest.raises(ValueError, match="is not what `circuits describe` writes"):
        export_labels(LABELS, "delphi", tmp_path / "b", described=tmp_path / "else.json")


def test_the_command_describes_and_keeps_labels(tmp_path, fails):
    out = tmp_path / "described.json"
    given = ["describe", "bundled", "--text", "bundled", "--tokens", TOKENS, "--count", 3]
    given += ["--site", SITE, "--shown", 4, "--judged", 3]
    done = call(*given, "--out", out)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert len(record["features"]) == 3
    said = " ".join(done.output.split())
    assert "described by the written rule, judged by words of the description" in said
    assert "own - another feature" in said
    assert "is there already, made from something else" in fails(*given, "--seed", 1, "--out", out)
    assert "give one of them" in fails(*given, "--answers", "model", "--endpoint", "x")
    assert "takes --endpoint URL and --name" in fails(*given, "--endpoint", "http://x")
    assert "name features (--features), or draw some" in fails("describe", *given[1:4])
    short = tmp_path / "short.txt"
    short.write_text("The boys sit.")
    said = fails("describe", "bundled", "--text", short, "--site", SITE)
    assert f"{short} is shorter than one row of 256 tokens" in said


def test_who_answers_nothing_that_can_be_read_is_told_of():
    with pytest.warns(Notice, match="verdicts .* could not be read and do not count"):
        record = scope.describe(
            "bundled",
            text=["bundled"],
            site=SITE,
            count=1,  # one alone is held against another feature, drawn or named
            answers=lambda prompt: "no",
            tokens=TOKENS,
            split=SPLIT,
        )
    assert len(record["features"]) == 1


def test_words_without_a_feature_and_an_export_without_a_name_say_what_is_missing(tmp_path, fails):
    said = fails("labels", "bundled", "--set", f"{SITE}=plural", "--by", "Ann")
    assert "write SITE/INDEX=TEXT" in said
    done = call("labels", "bundled", "--to", "neuronpedia", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.output == ""


def own_dictionaries(folder, site=SITE):
    """One of the bundled dictionaries as somebody's own."""
    copytree(Path(place_of("bundled").label) / site, folder / site)
    save_suite_index(folder, [site])
    return folder


def test_any_function_answers_and_labels_go_to_their_folder(tmp_path):
    def ask(prompt):
        return str([1] * n_asked(prompt)) if "numbers in square" in prompt else "some words"

    record = scope.describe(
        "bundled",
        text=["bundled"],
        features=[f"{SITE}/167"],
        answers=ask,
        tokens=TOKENS,
        split=SPLIT,
        labels=own_dictionaries(tmp_path),
    )
    assert record["by"] == "model ask"
    assert read_labels(tmp_path / "labels.json")[f"{SITE}/167"].text == "some words"
    assert record["features"][0]["descriptions"]["another feature"] == "some words"


@pytest.mark.parametrize("case", ["bundled", "empty", "other", "unreadable"])
def test_where_labels_cannot_be_kept_nobody_is_asked(tmp_path, case):
    (tmp_path / "empty").mkdir()
    own_dictionaries(tmp_path / "other", "resid_post.2")
    own_dictionaries(tmp_path / "unreadable")
    (tmp_path / "unreadable" / "labels.json").write_text("[")
    said = {
        "bundled": "labels are kept in a folder of yours",
        "empty": "holds no dictionaries",
        "other": "no label is of a dictionary of .*other, all are of resid_post.3: expected some",
        "unreadable": r"cannot read labels from .*labels\.json",
    }
    asked_for = []
    with pytest.raises(ValueError, match=said[case]):
        scope.describe(
            "bundled",
            text=["bundled"],
            features=[f"{SITE}/167"],
            answers=asked_for.append,
            labels=tmp_path / case,
        )
    assert not asked_for
