"""A run's folder, made up."""

import json

from circuits.graph import load, ordered, save
from tests.circuits import synthetic


def made_up_run(parent):
    """A run's folder with an ablation, in `parent`."""
    folder = parent / "a run"
    into = folder / "ablations" / "top 5"
    into.mkdir(parents=True)
    graph = synthetic.circuit(30)
    save(graph, folder / "graph.json")
    save(synthetic.circuit(20), into / "graph.json")
    (folder / "cards.json").write_text(json.dumps(synthetic.cards(graph)))
    (folder / "manifest.json").write_text(json.dumps({"dictionaries_path": "absent"}))
    (into / "result.json").write_text(json.dumps(synthetic.ablations()["everything"]))
    return folder


def feature_of(run):
    node = next(n for n in ordered(load(run / "graph.json")) if n.kind == "feature")
    return f"{node.site}/{node.feature}"
