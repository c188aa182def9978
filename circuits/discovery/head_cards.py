"""What the heads of most influence do in a replacement graph: where they look, and why.

    influence   of a query and a key, what runs from the key's token to the query's through the head
    pattern     what the head takes at the query of the key
    terms       the largest of the head's score by pairs of what was written at the two tokens
                (`transcoders.attention`), for each query at the key of most influence

Of several prompts all are means, by columns where positions are kept or lined up; what is not there
in a prompt counts as 0. Where positions are summed no token is the query, and heads have none.

Differs: of each prompt the `CANDIDATES` largest terms are added up, and not all.

Axes: `columns` of the prompts lined up at their last tokens.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import torch

from circuits.analysis import Analysis
from circuits.discovery.edge_heads import path_sizes
from circuits.discovery.replaced_prompts import ReplacedPrompt, ReplacedPrompts
from circuits.graph import rounded
from hooked_qwen.progress import Report, silent
from transcoders.attention import ScorePart, attention_score
from transcoders.weights import Head

SCHEMA = "heads/1"
HEADS, QUERIES, KEYS, TERMS = 8, 3, 6, 10
"Heads, queries of each, keys of a query, terms of a score: at most."
CANDIDATES = 1000
Looks = dict[int, dict[int, float]]
"Influence by query and key, the queries and keys of most influence first."


class _Query:
    """What one head does at one query, added up over prompts."""

    def __init__(self, head: str, query: int, influence: dict[int, float], columns: int) -> None:
        layer, number = map(int, head.split("."))
        self.head, self.query, self.influence = Head(layer, number), query, influence
        self.key = next(iter(influence))
        "of most influence"
        self.pattern = torch.zeros(columns, dtype=torch.float64)
        self.score = 0.0
        self.terms: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, analysis: Analysis, opened: ReplacedPrompt, candidates: int) -> None:
        """Add a prompt, if it is long enough."""
        model = opened.model
        padding = len(self.pattern) - model.n_tokens
        query, key = self.query - padding, self.key - padding
        if query < 0:
            return
        mixing = model.frozen.layers[self.head.layer].mixer.mixing
        asked = torch.tensor([query], device=opened.key.device)
        pattern = mixing.rows(asked, query + 1).flatten(0, 1)[self.head.head, 0]
        self.pattern[padding : self.query + 1] += pattern.double().cpu()
        if key < 0:
            return
        score = attention_score(analysis.model, model, self.head, query, key)
        self.score += score.total
        for of_query, of_key, term in score.strongest(candidates):
            self.terms[_shifted(of_query, padding), _shifted(of_key, padding)] += term

    def record(self, n: int, terms: int) -> dict[str, Any]:
        """Means over `n` prompts, and the `terms` that are largest."""
        pattern = (self.pattern / n).tolist()
        by_pattern = sorted(range(self.query + 1), key=lambda at: (-pattern[at], at))[:KEYS]
        shown = sorted({*by_pattern, self.key}, key=lambda at: (-pattern[at], at))
        largest = sorted(self.terms, key=lambda pair: (-abs(self.terms[pair]), pair))[:terms]
        return {
            "query": self.query,
            "influence": rounded(sum(self.influence.values())),
            "keys": [
                {
                    "key": at,
                    "pattern": rounded(pattern[at]),
                    "influence": rounded(self.influence.get(at, 0.0)),
                }
                for at in shown
            ],
            "scored": self.key,
            "score": rounded(self.score / n),
            "terms": [
                [*pair, rounded(self.terms[pair] / n)] for pair in largest if self.terms[pair]
            ],
        }


def make_head_cards(
    analysis: Analysis,
    graph: nx.DiGraph,
    report: Report = silent,
    *,
    terms: int = TERMS,
    candidates: int = CANDIDATES,
) -> dict[str, Any]:
    """The record of the graph's heads, as `heads.json` has it."""
    shares = dict(list(graph.graph["heads"]["influence"].items())[:HEADS])
    prompts, queries = ReplacedPrompts.of_transcoders(analysis), None
    columns = analysis.prompts.clean.tokens.shape[1]
    if analysis.config.positions != "sum":
        with torch.no_grad():
            for opened in prompts:
                if queries is None:
                    looks = looks_of(graph, shares, _column_of_outputs(opened, columns))
                    queries = list(_queries(looks, columns))
                for query in queries:
                    query.add(analysis, opened, candidates)
                report("where heads look", opened.number + 1, len(prompts))
    by_head: dict[str, list[dict[str, Any]]] = {head: [] for head in shares}
    for query in queries or ():
        by_head[_name(query.head)].append(query.record(len(prompts), terms))
    heads = [
        {"head": head, "influence": share, "queries": by_head[head]}
        for head, share in shares.items()
    ]
    return {"schema": SCHEMA, "heads": heads}


def looks_of(graph: nx.DiGraph, heads: Mapping[str, Any], output: int | None) -> dict[str, Looks]:
    """The influence that runs through each head, by the columns of query and key.

    `output` is the column that outputs read, None where they read several.
    """
    found: dict[str, Looks] = {head: {} for head in heads}
    for source, target, data in graph.edges(data=True):
        query = output if target.kind == "logit" else target.position
        if query is None or source.position is None:
            continue
        sizes = path_sizes(data)
        total = sum(sizes.values())
        for head in sizes.keys() & heads.keys():
            by_key = found[head].setdefault(query, {})
            influence = data["influence"] * sizes[head] / total
            by_key[source.position] = by_key.get(source.position, 0.0) + influence
    return {head: _ranked(looks) for head, looks in found.items()}


def _ranked(looks: Looks) -> Looks:
    ranked = {
        q: dict(sorted(keys.items(), key=lambda p: (-p[1], p[0]))) for q, keys in looks.items()
    }
    return dict(sorted(ranked.items(), key=lambda pair: (-sum(pair[1].values()), pair[0])))


def _queries(looks: Mapping[str, Looks], columns: int) -> Iterator[_Query]:
    for head, by_query in looks.items():
        for query, influence in list(by_query.items())[:QUERIES]:
            yield _Query(head, query, influence, columns)


def _column_of_outputs(opened: ReplacedPrompt, columns: int) -> int | None:
    positions = opened.outputs.targets.position.unique()
    return int(positions) + columns - opened.model.n_tokens if len(positions) == 1 else None


def _shifted(part: ScorePart, padding: int) -> str:
    """What a part is called where prompts are lined up."""
    name, at, position = str(part).rpartition("@")
    return f"{name}@{int(position) + padding}" if at else str(part)


def _name(head: Head) -> str:
    return f"{head.layer}.{head.head}"
