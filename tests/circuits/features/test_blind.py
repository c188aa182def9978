"""Blind cases: what is hidden stays hidden, a rule is scored as it should be, time runs one way."""

import json

import pytest

from circuits.features.blind import Hypothesis, read_hypothesis, rule_score, strongest_texts
from circuits.runs.blind import blind_case
from hooked_qwen.bundled import language
from hooked_qwen.load import load
from hooked_qwen.tokens import token_strings
from saes.evaluation.metrics import held_out_blocks
from saes.suite import load_suite
from tests.circuits.conftest import call

FEATURE = "mlp_out.0/375"


def texts():
    return language.documents(seed=5)


@pytest.fixture(scope="module")
def bundled():
    """The model, a dictionary, some text, and where its feature 375 is on there."""
    model = load("bundled", device="cpu")
    dictionary = load_suite("bundled", mlp="transcoder").fitting(model)["mlp_out.0"]
    blocks = held_out_blocks(texts(), model, tokens=2048)
    words = [token_strings(model.tokenizer, row) for row in blocks.tolist()]
    found = strongest_texts(model, dictionary, 375, blocks, Hypothesis(text="-"), k=10**4)
    return model, dictionary, blocks, words, found


def test_examples_are_all_of_the_tokens_at_which_a_feature_is_on(bundled):
    _, _, blocks, _, found = bundled
    assert 0 < len(found) < blocks.numel()
    strengths = [example["activation"] for example in found]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[-1] > 0


def test_a_rule_that_is_right_scores_one_and_one_that_is_half_right_less(bundled):
    model, dictionary, blocks, words, found = bundled
    on = {example["token"] for example in found}
    every = [word for row in words for word in row]
    rule = Hypothesis(text="its own tokens", tokens=tuple(on))
    score = rule_score(model, dictionary, 375, rule, blocks)
    own, named = score["feature"], sum(word in on for word in every)
    assert (own["on"], score["named"], score["tokens"]) == (len(found), named, len(every))
    assert own["recall"] == own["recall_weighted"] == 1
    assert own["precision"] == pytest.approx(len(found) / named, rel=1e-5)
    assert own["f1"] == pytest.approx(2 * len(found) / (named + len(found)), rel=1e-5)
    low, high = own["precision_interval"]
    assert low <= own["precision"] <= high
    random = score["random"]
    assert len(random["f1"]) == len(set(random["features"])) == 20
    assert 375 not in random["features"]
    assert random["mean_f1"] < random["best_f1"]
    assert random["as_good"] == sum(f1 >= own["f1"] for f1 in random["f1"])
    nothing = rule_score(model, dictionary, 375, Hypothesis(text="-", tokens=("zzz",)), blocks)
    assert (nothing["feature"]["precision"], nothing["feature"]["recall"]) == (None, 0)
    assert nothing["feature"]["f1"] == 0


def test_a_pattern_is_held_against_the_text_that_ends_in_the_token():
    words = ["The", " key", "s", " near", " the", " key"]
    assert Hypothesis(text="-", pattern=r" keys?").says(words) == [0, 1, 1, 0, 0, 1]
    assert Hypothesis(text="-", pattern=r"keys near the key").says(words) == [0, 0, 0, 0, 0, 1]
    assert Hypothesis(text="-", pattern=r"^The|near").says(words) == [1, 0, 0, 1, 0, 0]
    assert Hypothesis(text="-", tokens=(" key",)).says(words) == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"tokens": [" a"]}', 'expected {"text": "...", "tokens"'),
        ('{"text": "x", "tokens": " a"}', "expected a list of texts"),
        ('{"text": "x", "rule": 1}', "has rule: a hypothesis has text, and tokens or pattern"),
        ('{"text": " "}', "the hypothesis is empty"),
        ('{"text": "x", "pattern": "("}', "is no regular expression"),
        ('{"text": "x", "pattern": "a", "tokens": ["b"]}', "tokens or a pattern for its rule"),
    ],
)
def test_what_is_no_hypothesis_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        read_hypothesis(path)


def test_a_hypothesis_in_words_alone_has_no_rule(tmp_path, bundled):
    path = tmp_path / "mine.txt"
    path.write_text("plural nouns\n")
    found = read_hypothesis(path)
    assert found == Hypothesis(text="plural nouns")
    with pytest.raises(ValueError, match="no rule to test"):
        rule_score(*bundled[:2], 375, found, bundled[2])


def test_texts_come_after_the_hypothesis_and_it_stays(tmp_path, bundled):
    out, mine = tmp_path / "case.json", tmp_path / "mine.json"

    def case(**more):
        asked = {"model": "bundled", "top": 3, "texts": texts, "tokens": 1024}
        return blind_case("bundled", FEATURE, out, **asked, **more)

    mine.write_text(json.dumps({"text": "plural people", "tokens": [" surgeons", " judges"]}))
    with pytest.raises(ValueError, match="look at what it shows, then write the hypothesis"):
        case(hypothesis=mine)
    first = case()
    assert first == json.loads(out.read_text())
    assert first["hypothesis"] is first["revealed"] is None
    assert "examples" not in first
    assert case() == first
    read = first["shown"]["reads"]["tokens"]
    assert len(read) == 3
    last = case(hypothesis=mine)
    assert last["hypothesis"] == {
        "text": "plural people",
        "tokens": [" surgeons", " judges"],
        "pattern": None,
        "written": last["hypothesis"]["written"],
    }
    assert last["opened"] <= last["hypothesis"]["written"] <= last["revealed"]
    assert last["shown"] == first["shown"]
    assert 0 < len(last["examples"]) <= 12
    named = {example["token"] for example in last["examples"] if example["named"]}
    assert named <= {" surgeons", " judges"}
    assert last["score"]["feature"]["on"] > 0
    # The same again changes nothing; another one is too late.
    assert case(hypothesis=mine) == json.loads(out.read_text())
    mine.write_text(json.dumps({"text": "what I know now"}))
    with pytest.raises(ValueError, match="after that is not blind. The first is kept"):
        case(hypothesis=mine)
    with pytest.raises(ValueError, match="choose another --out"):
        blind_case("bundled", "mlp_out.0/1", out, model="bundled")
    mine.write_text("{}")
    with pytest.raises(ValueError, match="holds something that is no blind case"):
        blind_case("bundled", FEATURE, mine, model="bundled")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blind") / "run"
    prompt = ("--clean", "The surgeons near the jackets", "--answer", " sit", "--wrong", " sits")
    done = call("discover", *prompt, "--method", "replacement", "--nodes", 20, "--out", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_of_a_run_no_token_and_no_answer_is_shown_before(run, tmp_path):
    out, mine = tmp_path / "case.json", tmp_path / "mine.json"
    done = call("blind", "bundled", "mlp_out.4/421", "--out", out, "--run", run, "--top", 2)
    assert done.exit_code == 0, done.output
    shown = json.loads(out.read_text())["shown"]
    assert {node["node"] for node in shown["edges"]} == {"mlp_out.4/421@4"}
    (node,) = shown["edges"]
    sizes = [abs(entry["weight"]) for entry in node["reads"]]
    assert sizes == sorted(sizes, reverse=True)
    assert node["is_read_by"][0]["node"] == "output"
    graph = json.loads((run / "graph.json").read_text())
    labels = {n["id"]: n["label"] for n in graph["nodes"]}
    hidden = ("surgeons", "jackets", "sits")
    assert any(word in label for word in hidden for label in labels.values())
    assert not any(word in json.dumps(shown["edges"]) for word in hidden)
    assert not any(f" {word}" in done.output.split("in the run")[-1] for word in hidden)
    mine.write_text(json.dumps({"text": "the last noun of a plural subject"}))
    asked = ("blind", "bundled", "mlp_out.4/421", "--out", out, "--hypothesis", mine)
    done = call(*asked, "--text", "bundled", "--tokens", 256)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert record["prompts"] == ["The surgeons near the jackets"]
    assert record["score"] is None
    assert "the last noun of a plural subject" in done.output


def test_a_hypothesis_needs_a_text(fails, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    said = fails("blind", "bundled", FEATURE, "--out", tmp_path / "case.json",
                 "--hypothesis", tmp_path / "mine.txt")  # fmt: skip
    assert "tested on a text: say which with --text" in said


def test_a_feature_that_a_graph_has_not_is_told(run, tmp_path, fails):
    asked = ("blind", "bundled", "mlp_out.4/0", "--out", tmp_path / "c.json", "--run", run)
    assert "mlp_out.4/0 is not in the graph of the run" in fails(*asked)
    assert not (tmp_path / "c.json").exists()
