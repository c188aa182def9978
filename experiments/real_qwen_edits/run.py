"""Circuits of a real Qwen cut and rerun: specific, stable, and one mistake that is cut out?

    python -m experiments.real_qwen_edits.run --model MODEL.gguf --dictionaries DIR --text TEXT
                                              --work DIR [--part PART ...]

Run folders go to DIR; what is small enough to keep goes to `results/` beside this file, and the
tables of the README are printed.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuits.cli.progress_bars import bars
from circuits.cli.rerun_tables import with_interval
from circuits.discovery.config import DiscoverConfig
from circuits.edits.continuations import GenerateConfig
from circuits.edits.make import Change
from circuits.edits.side_effects import SideEffectsConfig
from circuits.graph import Node, ordered, write_json
from circuits.prompts import Prompt
from circuits.render.words import support
from circuits.runs.checks import FIGURES, MATRIX, STABILITY, specificity_run, stability_run
from circuits.runs.discover_run import discover_run
from circuits.runs.edits import Selection, bake_edit, make_edit
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import MADE_FROM
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.render_run import render_run
from circuits.runs.rerun import Rerun, rerun_edit
from circuits.runs.rerun_folder import RESULT
from circuits.runs.verify_run import verify_run
from circuits.verification.specificity import SpecificityConfig
from circuits.verification.stability import StabilityConfig
from circuits.verification.verify import VerifyConfig

RESULTS = Path(__file__).parent / "results"
TASKS = ("agreement_nounpp", "ioi", "greater_than", "brackets")
PAIRS = 30
DISCOVER = DiscoverConfig(estimator="ig-inputs")
ESTIMATORS = ("patching", "ig")

MISTAKEN, HARD = "agreement_rc", 100
# The worst mistake of the model in the first 100 training pairs of `agreement_rc`; in the
# counterpart the clause agrees with the subject, and nothing pulls the other way.
MISTAKE = Prompt(
    clean="The photos that the boy considers",
    patch="The photos that the boys consider",
    answer=(" are",),
    wrong=(" is",),
    where="the mistake",
)
CUT = 5
OTHERS = 12
WRITE_ON = ("The photos that the boy considers", "The photos that the boys consider")
TOKENS = 1024
OWN = ("edit", "model", MADE_FROM)
"What records say of this machine's files, which the results leave out."
TWO, FOUR = "{:.2f}".format, "{:.4f}".format


@dataclass(frozen=True)
class Given:
    """What the command line gave."""

    model: str
    dictionaries: str
    text: tuple[str, ...]
    work: Path

    def inputs(self, prompts: Path) -> Inputs:
        """With the dictionaries that stand in for MLPs."""
        return Inputs.resolved(self.model, self.dictionaries, prompts, "transcoder")


def main() -> None:
    """Parse the arguments and run every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=PARTS)
    chosen = parser.parse_args()
    given = Given(chosen.model, chosen.dictionaries, tuple(chosen.text), chosen.work)
    RESULTS.mkdir(exist_ok=True)
    for part in chosen.part or PARTS:
        print(PARTS[part](given), end="\n\n")


def specific(given: Given) -> str:
    """Each task's circuit cut in each task."""
    for task in TASKS:
        _circuit(given, task)
    folders = [given.work / task for task in TASKS]
    out = given.work / "specificity"
    with bars() as report:
        record = specificity_run(
            folders, out, config=SpecificityConfig(), force=True, report=report
        )
    for name in (MATRIX, FIGURES[0]):
        shutil.copyfile(out / name, RESULTS / name)
    return matrix(record)


def stable(given: Given) -> str:
    """The circuit of agreement past a noun on other draws of its prompts."""
    folder = _circuit(given, TASKS[0])
    with bars() as report:
        config = StabilityConfig(estimators=ESTIMATORS)
        record = stability_run(folder, config=config, force=True, report=report)
    shutil.copyfile(folder / STABILITY, RESULTS / STABILITY)
    return found_again(record)


def mistaken(given: Given) -> str:
    """One mistake traced to features, and the edit that cuts those that speak for it."""
    out = given.work / "mistake"
    with bars() as report:
        discover_run(
            given.inputs(out / "prompts.jsonl"),
            out,
            given=[MISTAKE],
            config=replace(DISCOVER, nodes=60),
            text=given.text,
            force=True,
            report=report,
        )
        verify_run(out, config=VerifyConfig(), report=report)
    render_run(out, ["svg"], 25)
    shutil.copyfile(out / "graph.svg", RESULTS / "mistake.svg")
    nodes = to_cut(out)
    make_edit(
        Selection(features=",".join(map(str, nodes))),
        Change(do="zero", positions="all"),
        given.work / "cut.json",
        run=out,
        force=True,
    )
    record = {"cut": [str(node) for node in nodes], **_told(out)}
    write_json(record, RESULTS / "mistake.json")
    return strongest(record)


def rerun(given: Given) -> str:
    """Its kind of prompts, other tasks, a text and what is written on, with the features cut."""
    hard = given.work / "hard.jsonl"
    make_prompts(MISTAKEN, HARD, split="train", seed=0, model=given.model, out=hard, force=True)
    with bars() as report:
        record = rerun_edit(
            given.work / "cut.json",
            Rerun(
                prompts=hard,
                text=given.text,
                tokens=TOKENS,
                generate=WRITE_ON,
                side_effects=SideEffectsConfig(prompts=OTHERS),
                writing=GenerateConfig(tokens=20),
            ),
            given.work / "rerun",
            model=given.model,
            dictionaries=given.dictionaries,
            mlp="transcoder",
            force=True,
            report=report,
        )
    write_json({k: v for k, v in record.items() if k not in OWN}, RESULTS / RESULT)
    return effects(record)


def baked(given: Given) -> str:
    """The cut as a model's folder, held against the cut in our hooks."""
    out = given.work / "baked"
    with bars() as report:
        record = bake_edit(
            given.work / "cut.json",
            out,
            run=given.work / "mistake",
            prompts=given.work / "hard.jsonl",
            force=True,
            report=report,
        )
    kept = {k: v for k, v in record.items() if k != MADE_FROM}
    write_json(kept, RESULTS / "baked.json")
    return json.dumps(kept, indent=1)


PARTS = {
    "mistake": mistaken,
    "rerun": rerun,
    "bake": baked,
    "specificity": specific,
    "stability": stable,
}


def _circuit(given: Given, task: str) -> Path:
    """The run of a task, found once."""
    folder, prompts = given.work / task, given.work / f"{task}.jsonl"
    if not (folder / "graph.json").exists():
        given.work.mkdir(parents=True, exist_ok=True)
        make_prompts(task, PAIRS, split="train", seed=0, model=given.model, out=prompts)
        with bars() as report:
            discover_run(given.inputs(prompts), folder, config=DISCOVER, force=True, report=report)
    return folder


def to_cut(folder: Path) -> list[Node]:
    """The features that speak most for the wrong verb by their exact effect, at every token.

    Of those that are on more strongly in the mistake than in the counterpart: what is off there
    cannot be cut.
    """
    run = read_run(folder)
    (state,) = run.open().analysis.states
    found: dict[Node, float] = {}
    for node, data in run.graph.nodes(data=True):
        if node.kind != "feature" or data["exact"] <= 0:
            continue
        at, index = node.position, [int(node.feature)]
        here, there = (
            float(f.of_each(index)[0, 0, at])
            for f in (state.features[node.site].f, state.features[node.site].reference)
        )
        if here > there:
            anywhere = node._replace(position=None)
            found[anywhere] = max(found.get(anywhere, 0.0), data["exact"])
    return sorted(found, key=lambda n: -found[n])[:CUT]


def _told(folder: Path, n: int = 20) -> dict[str, Any]:
    """The metric on both prompts, and the strongest features with what their cards say."""
    graph = read_run(folder).graph
    cards = json.loads((folder / "cards.json").read_text(encoding="utf-8"))
    rows = []
    for node in [node for node in ordered(graph) if node.kind == "feature"][:n]:
        data, card = graph.nodes[node], cards.get(f"{node.site}/{node.feature}", {})
        rows.append(
            {
                "id": str(node),
                **{k: data[k] for k in ("label", "token", "activation", "effect", "exact")},
                "support": support(data["exact"], graph.graph),
                "density": card.get("density"),
                "promoted": [token for token, _ in card.get("promoted", [])[:6]],
                "examples": ["".join(e["tokens"]) for e in card.get("examples", [])[:3]],
            }
        )
    return {
        **{k: graph.graph[k] for k in ("clean_metric", "patch_metric")},
        "features": rows,
    }


def strongest(record: dict[str, Any], n: int = 12) -> str:
    """The strongest features of the mistake."""
    lines = ["| feature | token | on | effect | exact | promotes |", "|---|---|---|---|---|---|"]
    for row in record["features"][:n]:
        on, effect, exact = (f"{row[k]:.2f}" for k in ("activation", "effect", "exact"))
        cells = [row["id"], row["token"], on, effect, exact, " ".join(row["promoted"][:4])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix(record: dict[str, Any]) -> str:
    """What is lost of each task with each circuit cut."""
    tasks = record["tasks"]
    lines = [f"| circuit cut | {' | '.join(tasks)} |", "|" + "---|" * (len(tasks) + 1)]
    for name, row in zip(record["rows"], record["lost"], strict=True):
        lines.append(f"| {name} | {' | '.join(with_interval(cell, TWO) for cell in row)} |")
    own = [with_interval(task["own_beyond_others"], TWO) for task in tasks.values()]
    lines.append(f"| its own less the others | {' | '.join(own)} |")
    return "\n".join(lines)


def found_again(record: dict[str, Any]) -> str:
    """How much of a circuit is found again."""
    nodes, reruns = record["nodes"], record["reruns"]
    rows = {
        "nodes, Jaccard with the run's": nodes["jaccard"],
        "nodes, Jaccard between two draws": nodes["between_draws"],
        "effects, rank correlation": nodes["rank_correlation"],
        f"nodes of {reruns['n']} graphs found anew, Jaccard": reruns["nodes"],
        f"edges of {reruns['n']} graphs found anew, Jaccard": reruns["edges"],
    }
    lines = ["| | found again |", "|---|---|"]
    lines += [f"| {name} | {with_interval(figure, TWO)} |" for name, figure in rows.items()]
    lines += ["", "| estimators | Jaccard | rank correlation |", "|---|---|---|"]
    for pair in record["estimators"]["pairs"]:
        a, b = pair["estimators"]
        correlation = pair["rank_correlation"]
        told = "–" if correlation is None else f"{correlation:.2f}"
        lines.append(f"| {a}, {b} | {pair['jaccard']:.2f} | {told} |")
    return "\n".join(lines)


def effects(record: dict[str, Any]) -> str:
    """Side effects beside the controls."""
    found = record["side_effects"]
    kinds = list(found["text"]["controls"])
    lines = [
        f"| | right answers | share | {' | '.join(kinds)} |",
        "|" + "---|" * (len(kinds) + 3),
    ]
    for row in found["behaviours"]:
        right = " → ".join(f"{row[f'accuracy_{w}']['value']:.0%}" for w in ("before", "after"))
        own = [_two(row["controls"][kind]["share"]["value"]) for kind in kinds]
        lines.append(
            f"| {row['name']} | {right} | {with_interval(row['share'], TWO)} | {' | '.join(own)} |"
        )
    text = found["text"]
    own = [f"{text['controls'][kind]['kl']['value']:.4f}" for kind in kinds]
    lines.append(
        f"| text: KL, nats a token | | {with_interval(text['kl'], FOUR)} | {' | '.join(own)} |"
    )
    return "\n".join(lines)


def _two(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"


if __name__ == "__main__":
    main()
