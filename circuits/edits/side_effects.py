"""What else an edit does: other behaviours and a text, beside what chance does at the same sites.

Each behaviour is a set of pairs. How far it moved is told as a share of its own effect,

    share = mean change of the metric / (mean metric on clean - mean metric on patch prompts)

in which the metric is the logit difference: -1 is what swapping clean for patch would do, 0 is
no change. Behaviours are ranked by the size of their share.

Axes: `prompts` pairs of one behaviour, `draws` those of one kind of control.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits import tasks
from circuits.edits.edit_controls import activity_over, controls_of, features_of
from circuits.edits.edited_model import Edited
from circuits.edits.figures import figure, mean_of, per_token
from circuits.edits.rerun import PromptOutcomes, run_prompts
from circuits.edits.rerun_text import PlainText, plain_text, run_text
from circuits.graph import rounded
from circuits.metrics.answers import preference_of
from circuits.prompts import EncodedPrompts, encode_prompts
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.progress import Report, silent
from saes.edit_file import Edit
from saes.evaluation.bootstrap import ratio, ratio_interval
from saes.suite import Suite

EDIT, TEXT = "", ""
"The edit among the kinds of runs, the text among the behaviours: no other one is called so."
Moved = dict[str, Tensor]
"What a run changes, prompt by prompt or token by token."
LEAST_CONTRAST = 0.1
"Logits between clean and patch below which a model does not show the behaviour."


@dataclass(frozen=True, kw_only=True)
class SideEffectsConfig:
    """How much is looked at."""

    prompts: int = 24
    "pairs of each behaviour"
    draws: int = 3
    "of each kind of control"
    seed: int = 0
    "of the pairs and of the controls"

    def __post_init__(self) -> None:
        check_at_least(1, self, "prompts", "draws")


def behaviours_for(
    name: str, tokenizer: Any, config: SideEffectsConfig
) -> tuple[dict[str, EncodedPrompts], dict[str, str]]:
    """Held-out pairs of every task in the language of the model called `name`, by task.

    Also why others were left out: a tokenizer may know too few of their words.
    """
    found, left_out = {}, {}
    for task, _ in tasks.list_for(name):
        try:
            listed = tasks.make_for(name, task.name, config.prompts, split="test", seed=config.seed)
            found[task.name] = encode_prompts(listed, tokenizer, positions="sum")
        except ValueError as error:
            left_out[task.name] = str(error)
    return found, left_out


@dataclass(frozen=True, eq=False)
class _Behaviour:
    """A set of pairs in the model as it is."""

    prompts: EncodedPrompts
    plain: PromptOutcomes
    contrast: Float[Tensor, " prompts"]
    "the metric of each clean prompt less that of its patch"


def side_effects(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    behaviours: Mapping[str, EncodedPrompts],
    blocks: Int[Tensor, "blocks pos"],
    config: SideEffectsConfig | None = None,
    *,
    report: Report = silent,
) -> dict[str, Any]:
    """What an edit does to each of some behaviours and to a text, beside its controls.

        side_effects(model, suite, edit, behaviours, blocks)["behaviours"][0]

    Raises `ValueError` for an edit of other dictionaries, for one that goes to a patch's values,
    which a text has none of, and for a behaviour without patch prompts.
    """
    config = config or SideEffectsConfig()
    edited = Edited(model=model, suite=suite, edit=edit, must_fire=False)
    if edited.needs_patch:
        raise ValueError(
            "the edit goes to the patch's values, which other text has none of: side effects are "
            "those of an edit to zero, a mean or a value"
        )
    activity = activity_over(model, suite, list(features_of(edit)), blocks)
    controls = controls_of(edited, activity, draws=config.draws, seed=config.seed)
    known = {name: _plain(model, name, prompts) for name, prompts in behaviours.items()}
    moved = _measured(model, {EDIT: [edited], **controls}, known, plain_text(model, blocks), report)
    rows = [_record(name, known[name], moved[name]) for name in known]
    return {
        "draws": config.draws,
        "behaviours": sorted(rows, key=_by_share),
        "text": _text_record(moved[TEXT]),
        "controls": {
            name: [[str(op.node) for op in run.edit.operations] for run in some]
            for name, some in controls.items()
            if not any(run.redirect for run in some)
        },
    }


def _measured(
    model: TransformerBridge,
    runs: Mapping[str, Sequence[Edited]],
    known: Mapping[str, _Behaviour],
    text: PlainText,
    report: Report,
) -> dict[str, dict[str, list[Moved]]]:
    """How far each draw of the edit and of each control changes the behaviours and the text."""
    found: dict[str, dict[str, list[Moved]]] = {name: {} for name in (*known, TEXT)}
    total, done = sum(map(len, runs.values())) * (len(known) + 1), 0
    for kind, some in runs.items():
        for run in some:
            for name in found:
                moved = (
                    _moved_text(model, text, run)
                    if name == TEXT
                    else _moved(model, known[name], run)
                )
                found[name].setdefault(kind, []).append(moved)
                done += 1
                report("side effects", done, total)
    return found


def _by_share(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    value = row["share"]["value"]
    return value is None, -abs(value or 0.0), row["name"]


def _plain(model: TransformerBridge, name: str, prompts: EncodedPrompts) -> _Behaviour:
    if prompts.patch is None:
        raise ValueError(f"{name} has no patch prompts, which its own effect is told by")
    metric = preference_of(prompts)
    plain = run_prompts(model, prompts, metric)
    swapped = run_prompts(model, replace(prompts, clean=prompts.patch), metric)
    return _Behaviour(prompts, plain, plain.metric - swapped.metric)


def _moved(model: TransformerBridge, behaviour: _Behaviour, run: Edited) -> Moved:
    after = run_prompts(model, behaviour.prompts, preference_of(behaviour.prompts), run)
    return {
        "change": after.metric - behaviour.plain.metric,
        "right": (after.metric > 0).double(),
        "kl": behaviour.plain.kl_to(after),
    }


def _moved_text(model: TransformerBridge, text: PlainText, run: Edited) -> Moved:
    found = run_text(model, text, run)
    return {"before": found.ce_before, "change": found.ce - found.ce_before, "kl": found.kl}


def _mean(draws: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """Over the draws, prompt by prompt or token by token."""
    return torch.stack([draw[name] for draw in draws]).mean(0)


def _record(name: str, behaviour: _Behaviour, runs: Mapping[str, list[Moved]]) -> dict[str, Any]:
    (own,), contrast = runs[EDIT], behaviour.contrast
    shows = float(contrast.mean()) >= LEAST_CONTRAST

    def share(change: Tensor) -> dict[str, Any]:
        if not shows:
            return {"value": None, "interval": None}
        value = ratio(change, contrast)
        return figure(value or 0.0, ratio_interval(change, contrast))

    def of_control(draws: list[Moved]) -> dict[str, Any]:
        change = _mean(draws, "change")
        return {
            "share": share(change),
            "draws": [share(draw["change"])["value"] for draw in draws],
            "beyond": share(own["change"] - change),
            "kl": mean_of(_mean(draws, "kl")),
        }

    return {
        "name": name,
        "n": len(behaviour.prompts),
        "before": mean_of(behaviour.plain.metric),
        "contrast": mean_of(contrast),
        "accuracy_before": mean_of((behaviour.plain.metric > 0).double()),
        "accuracy_after": mean_of(own["right"]),
        "change": mean_of(own["change"]),
        "share": share(own["change"]),
        "kl": mean_of(own["kl"]),
        "controls": {kind: of_control(draws) for kind, draws in runs.items() if kind},
    }


def _text_record(runs: Mapping[str, list[Moved]]) -> dict[str, Any]:
    (own,) = runs[EDIT]
    return {
        "blocks": len(own["kl"]),
        "tokens": own["kl"].numel(),
        "ce_before": per_token(own["before"]),
        "change": per_token(own["change"]),
        "kl": per_token(own["kl"]),
        "controls": {
            kind: {
                "change": per_token(_mean(draws, "change")),
                "kl": per_token(_mean(draws, "kl")),
                "draws": [rounded(float(draw["kl"].mean())) for draw in draws],
                "beyond": per_token(own["kl"] - _mean(draws, "kl")),
            }
            for kind, draws in runs.items()
            if kind
        },
    }
