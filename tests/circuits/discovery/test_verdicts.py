"""What a reader is told in words: where nodes went, and whether there is anything to explain."""

import dataclasses

import pytest

from circuits.analysis import Analysis
from circuits.cli.fitting import WIDEST
from circuits.cli.tables import discovery_summary
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.prune import by_influence, connected, share_of_influence, unconnected
from circuits.discovery.sparse_feature import discover
from circuits.discovery.verdicts import of_task, of_verification
from circuits.graph import Node
from circuits.render.pages.circuit.page import page
from tests.circuits.printed import printed
from tests.circuits.synthetic import circuit, verification
from tests.toys import full_suite, shared_toy, toy_prompts

OUTPUT, TOKEN = Node("logit", "logit"), Node("embed", "token", 0)


def feature(i):
    return Node("mlp_out.0", i, 0)


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=3)


def features_of(graph):
    return [n for n in graph if n.kind in ("feature", "error")]


def test_nodes_that_were_asked_for_and_are_not_there_are_accounted_for(case):
    """Every node considered is in the graph or has a reason, and the terminal and page say so."""
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=5000)
    found = discover(Analysis.of(model, suite, prompts, config))
    meta = found.graph.graph
    kept = len(features_of(found.graph))
    assert meta["nodes_kept"] == kept < meta["nodes_considered"]
    assert sum(meta["left_out"].values()) == meta["nodes_considered"] - kept
    assert meta["nodes_that_move"] == sum(n.kind != "token" for n, _ in found.ranking)
    (notice,) = [n for n in meta["notices"] if "asked for" in n]
    assert notice.startswith(f"{kept:,} of the 5,000 nodes asked for: only ")
    assert "have clean and patch values that differ" in notice
    said = printed(discovery_summary, found.graph, width=WIDEST).splitlines()
    assert f"note: {notice}" in said
    assert notice.split(":")[0] in page(found.graph)


def test_a_threshold_says_how_many_it_left_out(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=60)
    strengths = [abs(e) for n, e in discover(Analysis.of(model, suite, prompts, config)).ranking
                 if n.kind != "token"][:80]  # fmt: skip
    config = dataclasses.replace(config, threshold=sorted(strengths)[30])
    meta = discover(Analysis.of(model, suite, prompts, config)).graph.graph
    assert meta["left_out"]["below_threshold"] == 30
    (notice,) = [n for n in meta["notices"] if "asked for" in n]
    assert "of the 80 strongest, 30 below the threshold" in notice


def test_all_that_were_asked_for_need_no_word(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=20)
    meta = discover(Analysis.of(model, suite, prompts, config)).graph.graph
    assert meta["nodes_kept"] == 20
    assert not [n for n in meta["notices"] if "asked for" in n or "no path" in n]
    assert meta["nodes_unconnected"] == 0


def test_a_graph_too_small_to_be_connected_says_so(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=2)
    found = discover(Analysis.of(model, suite, prompts, config))
    meta = found.graph.graph
    assert meta["nodes_unconnected"] > 0
    alone = f"{meta['nodes_unconnected']} of the 2 nodes lie on no path from the tokens"
    assert any(n.startswith(alone) for n in meta["notices"])


def test_nodes_without_a_path_are_told_by_the_end_that_they_miss():
    a, b, c, d = map(feature, range(4))
    weights = {(TOKEN, a): 1.0, (a, OUTPUT): 1.0, (b, OUTPUT): 1.0, (TOKEN, c): 1.0, (c, d): 1.0}
    ways = unconnected([a, b, c, d], weights, output=OUTPUT, inputs=[TOKEN])
    assert ways == ([c, d], [b])
    assert unconnected([a, b], weights, output=OUTPUT, inputs=[]) == ([], [])
    assert unconnected([a], {}, output=OUTPUT, inputs=[TOKEN]) == ([a], [])


def test_a_share_of_influence_holds_after_the_path_rule():
    """The most influential node hangs on no token: others make up for it, or all are kept."""
    loose, *rest = map(feature, range(6))
    weights = {(loose, OUTPUT): 5.0}
    weights |= {(n, OUTPUT): 1.0 for n in rest} | {(TOKEN, n): 1.0 for n in rest}
    nodes = [loose, *rest]

    def connect(some):
        return connected(some, weights, count=6, output=OUTPUT, inputs=[TOKEN])

    assert by_influence(nodes, weights, OUTPUT, 0.3) == [loose]
    kept = by_influence(nodes, weights, OUTPUT, 0.3, connect=connect)
    assert kept == rest[:3]
    assert share_of_influence(kept, nodes, weights, OUTPUT) == pytest.approx(0.3)
    assert by_influence(nodes, weights, OUTPUT, 0.9, connect=connect) == rest


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_influence_reached_is_recorded(case, share):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=40, influence=share)
    meta = discover(Analysis.of(model, suite, prompts, config)).graph.graph
    short = [n for n in meta["notices"] if "of the influence" in n]
    assert bool(short) == (meta["influence_reached"] < share)
    assert meta["influence"] == share
    assert 0 < meta["influence_reached"] <= 1


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (("logit-difference", 3.2, -2.9, 0.97), []),
        (("logit-difference", 0.07, 0.08, 0.5), ["does not do this task", "hardly changes what"]),
        (("logit-difference", -2.0, 2.5, 0.1), ["does not do this task", "wrong way round?"]),
        (("logit-difference", 3.0, None, 0.9), []),
        (("kl", 0.0, 1.2, 0.9), []),
        (("kl", 0.0, 0.001, 0.9), ["hardly changes what the model says"]),
        (("feature:mlp_out.1/3", 0.5, 2.0, 0.2), []),
        (("feature:mlp_out.1/3", 0.5, 0.5, None), ["hardly changes what is asked"]),
    ],
)
def test_a_model_that_does_not_do_the_task_is_told_in_words(numbers, words):
    found = of_task(*numbers, size=3.0)
    assert len(found) == len(words)
    assert all(word in said for word, said in zip(words, found, strict=True))


def test_a_random_model_does_no_task_and_terminal_file_and_page_say_so(case):
    model, suite, prompts = case
    swapped = dataclasses.replace(
        prompts, answer_ids=prompts.wrong_ids, wrong_ids=prompts.answer_ids
    )
    metas, said = [], []
    for some in (prompts, swapped):
        config = DiscoverConfig(estimator="patching", nodes=10)
        found = discover(Analysis.of(model, suite, some, config))
        metas.append(found.graph.graph)
        said += printed(discovery_summary, found.graph, width=WIDEST).splitlines()
    worse = min(metas, key=lambda meta: meta["accuracy"])
    assert worse["accuracy"] < 0.6
    assert any("does not do this task" in n for n in worse["notices"])
    assert any("does not do this task" in line for line in said)
    assert any(f"right answer preferred on {worse['accuracy']:.0%}" in line for line in said)


def rows(**values):
    return {name.replace("_", " ").replace("dictionaries no", "dictionaries, no"):
            {"faithfulness": row} for name, row in values.items()}  # fmt: skip


def test_untrained_dictionaries_that_lead_do_so_by_their_errors():
    curves = {
        "full": 3.0,
        "empty": 0.0,
        "sizes": [5, 20],
        "rows": rows(
            circuit=[0.01, 0.04],
            circuit_without_errors=[0.01, 0.03],
            untrained_dictionaries=[0.2, 0.56],
            untrained_dictionaries_no_errors=[0.0, -0.004],
        ),
    }
    (said,) = of_verification({"curves": curves})
    assert said.startswith("untrained dictionaries keep 0.56 at 20 nodes and the suite's 0.04")
    assert said.endswith("compare the rows without errors, 0.00 and 0.03")
    curves["rows"]["circuit"]["faithfulness"] = [0.3, 0.6]
    assert of_verification({"curves": curves}) == []


def test_the_circuit_is_held_against_chance_in_words():
    margin = {"size": 100, "circuit": 0.9, "random nodes": 0.1, "difference": 0.8}
    curves = {"full": 3.0, "empty": 0.0, "sizes": [100], "rows": {}}
    for interval, words in (([0.6, 0.9], "more than as many random"), ([-0.1, 0.9], "no more")):
        (said,) = of_verification({"curves": curves | {"margin": margin | {"interval": interval}}})
        assert words in said
    said = of_verification({"curves": curves | {"empty": 2.9}})
    assert "faithfulness is a share of next to nothing" in said[0]


def test_the_graph_and_the_strongest_nodes_have_two_names():
    graph = circuit(40)
    record = verification(graph)
    record["curves"]["rows"] = {name: {**row} for name, row in record["curves"]["rows"].items()}
    html = page(graph, verification=record)
    assert "strongest nodes" in html
    assert "Faithfulness of the graph" in html
    assert '"circuit":{"faithfulness"' not in html.replace(" ", "")
