"""Where heads look in a replacement graph, and why: against patterns and scores themselves."""

import pytest

from circuits.discovery import head_cards
from circuits.discovery.head_cards import looks_of, make_head_cards
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from saes.suite import Suite
from tests.circuits.discovery.replaced import analysis, rows_of
from tests.toys import padded_on_the_left, toy_prompts
from tests.transcoders.toys import suite_of, toy_of
from transcoders.attention import attention_score
from transcoders.weights import Head


@pytest.fixture(scope="module")
def prompts():
    return toy_prompts(n=3)


EVERY_TERM = {"terms": 10**6, "candidates": 10**6}


def cards_of(prompts, *, limits=None, **config):
    asked = analysis(prompts, nodes=20, **config)
    graph = discover_replacement(asked).graph
    return asked, graph, make_head_cards(asked, graph, **(limits or {}))


def head_named(card) -> Head:
    return Head(*map(int, card["head"].split(".")))


@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_patterns_and_scores_are_means_and_terms_add_up_to_the_score(prompts, rows):
    asked, graph, record = cards_of(rows_of(prompts, rows), limits=EVERY_TERM)
    opened = list(ReplacedPrompts.of_transcoders(asked))
    shares = graph.graph["heads"]["influence"]
    assert [card["head"] for card in record["heads"]] == list(shares)[: head_cards.HEADS]
    checked = 0
    for card in record["heads"]:
        head = head_named(card)
        assert card["influence"] == shares[card["head"]]
        for query in card["queries"]:
            patterns = [
                one.model.frozen.layers[head.layer].mixer.pattern.flatten(0, 1)[
                    head.head, query["query"]
                ]
                for one in opened
            ]
            for key in query["keys"]:
                mean = sum(float(p[key["key"]]) for p in patterns) / len(rows)
                assert key["pattern"] == pytest.approx(mean, rel=1e-6)
            scores = [
                attention_score(asked.model, one.model, head, query["query"], query["scored"])
                for one in opened
            ]
            mean = sum(score.total for score in scores) / len(rows)
            assert query["score"] == pytest.approx(mean, rel=1e-6)
            terms = [term for *_, term in query["terms"]]
            assert sum(terms) == pytest.approx(mean, rel=1e-4, abs=1e-4)
            assert [abs(t) for t in terms] == sorted((abs(t) for t in terms), reverse=True)
            named = {str(part) for score in scores for part in (*score.query, *score.key)}
            assert {name for *pair, _ in query["terms"] for name in pair} <= named
            checked += 1
    assert checked > 6


def test_queries_and_keys_are_those_of_most_influence(prompts):
    _, graph, record = cards_of(rows_of(prompts, [0]))
    for card in record["heads"]:
        by_look: dict = {}
        for source, target, data in graph.edges(data=True):
            parts = [data["direct"], data["rest"], data.get("other_heads", 0.0)]
            total = sum(map(abs, [*parts, *data["heads"].values()]))
            query = 5 if target.kind == "logit" else target.position
            share = abs(data["heads"].get(card["head"], 0.0)) / total * data["influence"]
            by_look[query, source.position] = by_look.get((query, source.position), 0) + share
        totals = {q: sum(v for (at, _), v in by_look.items() if at == q) for q, _ in by_look}
        best = sorted((v for v in totals.values() if v), reverse=True)[: head_cards.QUERIES]
        found = [query["influence"] for query in card["queries"]]
        assert found == pytest.approx(best, rel=1e-6)
        for query in card["queries"]:
            keys = {key: v for (q, key), v in by_look.items() if q == query["query"]}
            assert keys[query["scored"]] == pytest.approx(max(keys.values()))
            assert query["scored"] in [key["key"] for key in query["keys"]]
            for key in query["keys"]:
                assert key["influence"] == pytest.approx(keys.get(key["key"], 0.0), rel=1e-6)


def test_shorter_prompts_are_lined_up_at_their_last_tokens(prompts):
    """The same prompts behind padding look from and at the same tokens."""
    one = rows_of(prompts, [0])
    _, _, plain = cards_of(one, positions="end")
    _, _, padded = cards_of(padded_on_the_left(one), positions="end")
    for card, moved in zip(plain["heads"], padded["heads"], strict=True):
        for query, other in zip(card["queries"], moved["queries"], strict=True):
            assert other["query"] == query["query"] + 3
            assert other["scored"] == query["scored"] + 3
            assert other["score"] == pytest.approx(query["score"], rel=1e-6)
            named = [name for *pair, _ in query["terms"][:3] for name in pair]
            renamed = [name for *pair, _ in other["terms"][:3] for name in pair]
            assert [shifted(name) for name in named] == renamed


def shifted(name: str) -> str:
    before, at, position = name.rpartition("@")
    return f"{before}@{int(position) + 3}" if at else name


def test_summed_positions_have_no_queries(prompts):
    _, graph, record = cards_of(prompts, positions="sum")
    assert record["heads"]
    assert not any(card["queries"] for card in record["heads"])
    assert not any(looks_of(graph, {"1.0": 1}, None)["1.0"])


def test_a_model_whose_lower_layers_have_no_heads_has_cards_of_the_others(prompts):
    one = rows_of(prompts, [0])
    asked = analysis(one, Suite(suite_of([0, 1, 2]), {}), toy_of("qwen3.5"))
    record = make_head_cards(asked, discover_replacement(asked).graph)
    assert {head_named(card).layer for card in record["heads"]} == {3}
    assert all(card["queries"][0]["terms"] for card in record["heads"])
