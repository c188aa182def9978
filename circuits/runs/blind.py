"""A blind case as one JSON file: what was shown, what was believed, what came out, and when.

    schema       blind/1
    feature      SITE/INDEX
    shown        `circuits.features.connections` of the feature, without what people call features;
                 of a run also `edges`, what its nodes read and are read by in the run's graph:
                 tokens only as positions, outputs without their tokens, no labels from examples
    opened       when that was shown
    hypothesis   `text`, and the rule; `written`, when it was handed in; null until then
    revealed     when texts were shown; `examples` are the strongest, `score` the rule's, and of a
                 run its `prompts`

Times are UTC. The hypothesis is in the file before any text is read, and stays.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.blind import Hypothesis, read_hypothesis, rule_score, strongest_texts
from circuits.features.card import promoted_labels
from circuits.features.connections import connections_of
from circuits.features.neighbours import find_feature
from circuits.graph import Node, rounded, write_json
from circuits.opening import open_suite
from circuits.prompts import read_prompts
from circuits.runs.finished_run import read_run
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import Corpus
from saes.evaluation.metrics import held_out_blocks
from saes.on_demand import OnDemand
from saes.suite import MlpChoice, Suite, hash_of

SCHEMA = "blind/1"
EDGES = 10
"Of each node of a run's graph, the strongest in and out that are shown."


def blind_case(
    dictionaries: str,
    which: str,
    out: Path,
    *,
    model: str,
    mlp: MlpChoice = "transcoder",
    top: int = 10,
    run: Path | None = None,
    hypothesis: Path | None = None,
    texts: Corpus | None = None,
    tokens: int = 16_384,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Open a blind case, or, with a `hypothesis`, test it and show `texts`; the file's record.

    Raises `ValueError` where `out` is another case, where a hypothesis comes after the texts were
    shown, and where it comes before anything was shown.
    """
    made_from = {"dictionaries_hash": hash_of(dictionaries), "model": model, "mlp": mlp}
    record = _read(out, which, made_from)
    believed = None if hypothesis is None else read_hypothesis(hypothesis)
    if record is not None and (believed is None or record["revealed"] is not None):
        return _as_it_is(record, believed, out)
    if record is None and believed is not None:
        raise ValueError(
            f"there is no case at {out} yet: open it without --hypothesis, look at what it shows, "
            "then write the hypothesis"
        )
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    suite = suite.fitting(loaded)
    if record is None:
        record = {
            "schema": SCHEMA,
            "feature": which,
            "made_from": made_from,
            "run": None if run is None else str(run),
            "opened": _now(),
            "shown": _shown(loaded, suite, which, top, run),
            "hypothesis": None,
            "revealed": None,
        }
        write_json(record, out)
        return record
    assert believed is not None
    assert texts is not None, "a hypothesis is tested on a text"
    record["hypothesis"] = believed.record() | {"written": _now()}
    write_json(record, out)
    record |= _revealed(loaded, suite, which, believed, record, texts, tokens, seed)
    write_json(record, out)
    return record


def _read(out: Path, which: str, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    if not out.exists():
        return None
    try:
        record = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"{out} holds something that is no blind case: choose another --out")
    if (record["feature"], record["made_from"]) != (which, dict(made_from)):
        raise ValueError(
            f"{out} is the case of {record['feature']}, of other dictionaries or another feature "
            f"than {which}: choose another --out"
        )
    return record


def _as_it_is(record: dict[str, Any], believed: Hypothesis | None, out: Path) -> dict[str, Any]:
    """A case to which nothing is added; a second hypothesis would not be blind."""
    if believed is not None:
        kept = {k: v for k, v in record["hypothesis"].items() if k != "written"}
        if kept != believed.record():
            raise ValueError(
                f"the texts of {out} were shown on {record['revealed']}: a hypothesis that comes "
                "after that is not blind. The first is kept; open another case with another --out"
            )
    return record


def _shown(
    model: TransformerBridge, suite: Suite, which: str, top: int, run: Path | None
) -> dict[str, Any]:
    shown = connections_of(model, suite, which, top)
    if run is not None:
        shown["edges"] = _edges(model, suite, which, read_run(run).graph)
    return shown


def _edges(
    model: TransformerBridge, suite: Suite, which: str, graph: nx.DiGraph
) -> list[dict[str, Any]]:
    """What the nodes of a feature read and are read by in a graph, without any text."""
    site, _, index = which.partition("/")
    nodes = sorted(
        (n for n in graph if (n.site, str(n.feature)) == (site, index)), key=lambda n: str(n)
    )
    if not nodes:
        raise ValueError(f"{which} is not in the graph of the run: leave out --run, or ask for one "
                         "of its features")  # fmt: skip
    labels = promoted_labels(model, suite, graph)

    def entry(node: Node, weight: float) -> dict[str, Any]:
        # An output is called by its tokens, which are an answer of the prompts.
        name = "output" if node.kind == "logit" else str(node)
        return {"node": name, "label": labels.get(node, ""), "weight": rounded(weight)}

    found = []
    for node in nodes:
        read = [(s, w) for s, _, w in graph.in_edges(node, data="weight")]
        by = [(t, w) for _, t, w in graph.out_edges(node, data="weight")]
        sides = {
            name: [entry(*pair) for pair in sorted(some, key=lambda p: -abs(p[1]))[:EDGES]]
            for name, some in (("reads", read), ("is_read_by", by))
        }
        found.append({"node": str(node), **sides})
    return found


def _revealed(
    model: TransformerBridge,
    suite: Suite,
    which: str,
    believed: Hypothesis,
    record: Mapping[str, Any],
    texts: Corpus,
    tokens: int,
    seed: int,
) -> dict[str, Any]:
    opened = OnDemand(suite, list(suite))
    place, index = find_feature(which, opened)
    dictionary = opened[place]
    blocks = held_out_blocks(texts(), model, tokens=tokens)
    score = None
    if believed.has_rule:
        score = rule_score(model, dictionary, index, believed, blocks, seed=seed)
    found = {
        "revealed": _now(),
        "examples": strongest_texts(model, dictionary, index, blocks, believed),
        "score": score,
    }
    if record["run"] is not None:
        prompts = read_prompts(Path(read_run(Path(record["run"])).inputs.prompts))
        found["prompts"] = [prompt.clean for prompt in prompts]
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
