"""Models trained in turn from the same start, each judged alike: what `tune` and `reinforce` share.

Every arm opens the model anew, so that one is in memory at a time, and is trained for as many
steps on the same texts by the same seed. One of them is kept: as an adapter, or a model's folder.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from torch import nn

from circuits.graph import write_json
from circuits.render.charts.tune_figure import tune_figure
from circuits.runs.overwrite import MADE_FROM, check_record
from circuits.runs.tuning_case import StartingModel
from hooked_qwen.adapters import require_peft
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.files import build_folder_atomically, check_not_file
from hooked_qwen.load import load_tokenizer
from hooked_qwen.nodes import Node
from hooked_qwen.notices import notify
from hooked_qwen.progress import Report
from saes.scope.fine_tune import TrainingCurve
from saes.scope.trained_weights import counts
from saes.scope.tuned_model import Judge, difference

RECORD, FIGURE = "tune.json", "tune.svg"
BEFORE = "before"
LEAST = 8
"Tokens of a text at least."
Train = Callable[[nn.Module, Report], TrainingCurve]
"Trains a model in place, telling how far it is; the curve."


@dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """What of a model is trained, and on how much text.

    Raises `ValueError` for what is out of range.
    """

    rank: int | None = None
    "of a LoRA adapter; None for every weight"
    longest: int = 128
    "tokens of a text; what is longer is cut into several"
    texts: int = 1000
    "read at most"

    def __post_init__(self) -> None:
        check_at_least(LEAST, self, "longest")
        check_at_least(2, self, "texts")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"the rank is {self.rank}: expected at least 1")


def nodes_asked(feature: Sequence[str], found: Path | None, top: int) -> tuple[Node, ...]:
    """Features by name, then the first of a record of `circuits features search`.

    Raises `ValueError` for a file that is no such record.
    """
    nodes = [Node.parse(name) for name in feature]
    if found is not None:
        if not _is_list_of_features(record := json.loads(found.read_text(encoding="utf-8"))):
            raise ValueError(
                f"{found} is no list of features: expected what `circuits features search` wrote "
                "with --out, by two sets of texts, a token or a label"
            )
        nodes += [Node.parse(one["feature"]) for one in record["found"][:top]]
    return tuple(dict.fromkeys(nodes))


def _is_list_of_features(record: Any) -> bool:
    found = record.get("found") if isinstance(record, dict) else None
    return isinstance(found, list) and all("feature" in one for one in found)


def in_turn(
    start: StartingModel,
    arms: Mapping[str, Train],
    judge: Judge,
    kept: str,
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    """Train each arm, judge it, and save the one that is `kept` into `folder`; their records."""
    records: dict[str, Any] = {}
    for name, train in arms.items():
        of_arm = _telling(name, report)
        model = start.to_train()
        sizes = counts(model)
        curve = train(model, of_arm)
        records[name] = replace(judge, report=of_arm)(model) | {"curve": curve} | sizes
        if name == kept:
            _save(model, start, folder)
        del model
    return records


def _telling(name: str, report: Report) -> Report:
    """A report that says which model is being trained or judged."""

    def of_arm(what: str, done: int, total: int, note: str = "") -> None:
        report(f"{what}, {name}", done, total, note)

    return of_arm


def _save(model: nn.Module, start: StartingModel, folder: Path) -> None:
    """As an adapter, or a whole model with its tokenizer; `--model` takes both."""
    cast(Any, model).save_pretrained(folder)
    if start.rank is not None:
        require_peft()
        # peft writes a card with blanks to fill in.
        (folder / "README.md").unlink(missing_ok=True)
        return
    load_tokenizer(start.source).save_pretrained(folder)


def side_by_side(judged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Records of the model before, of the arm without features, and of the others; differences.

    Warns where no model shows any of the behaviour.
    """
    notify_of_no_behaviour(judged)
    before, control, *others = judged
    return {
        "arms": judged,
        "against": {
            control: compared(judged, control, others),
            before: compared(judged, before, [control, *others]),
        },
    }


def notify_of_no_behaviour(judged: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn where no model shows any of the behaviour, so that nothing can be concluded of it."""
    if not any(chain.from_iterable(one["by_prompt"] for one in judged.values())):
        notify(
            "no model shows any of the behaviour after these prompts, so nothing can be said of "
            "it: choose another --behaviour, or --prompts that bring it about"
        )


def compared(
    arms: Mapping[str, Mapping[str, Any]], against: str, others: Sequence[str]
) -> dict[str, Any]:
    """How much more of the behaviour each of the others has than one arm, prompt by prompt."""
    return {
        name: difference(arms[name]["by_prompt"], arms[against]["by_prompt"]) for name in others
    }


def write_trained(
    out: Path,
    schema: str,
    settings: Mapping[str, Any],
    others: Mapping[str, Any],
    run: Callable[[Path], Mapping[str, Any]],
    *,
    force: bool,
) -> dict[str, Any]:
    """What `run` made in a folder, with its record and figure, in `out` whole or not at all.

    The record says its `settings`, and that it was made from them and `others`.

    Raises `ValueError` where `out` holds something else, unless by `force`.
    """
    check_not_file(out)
    if out.exists() and not force and not (out / RECORD).exists() and any(out.iterdir()):
        raise ValueError(f"{out} is there already and holds something else: choose another --out")
    made_from = {**settings, **others}
    check_record(out / RECORD, made_from, force=force)
    record: dict[str, Any] = {}

    def build(folder: Path) -> None:
        record.update({"schema": schema, **settings, **run(folder), MADE_FROM: made_from})
        write_json(record, folder / RECORD)
        tune_figure(record, folder / FIGURE)

    build_folder_atomically(out, build)
    return record
