"""The first pass over the prompts of a replacement graph: influence and effect of every node."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.influence import Influence, influence_of
from circuits.discovery.linear_outputs import LinearOutputs
from circuits.discovery.node_changes import changes_to
from circuits.discovery.replaced_prompts import ReplacedPrompt, ReplacedPrompts
from circuits.metrics.answers import preference_of
from circuits.metrics.metric import on_clean, on_patch
from hooked_qwen.progress import Report, silent
from hooked_qwen.stream import is_outlier_in_prompt
from transcoders.replacement import ReplacementModel


@dataclass(frozen=True)
class Traced:
    """What the first pass found of one prompt."""

    key: Int[Tensor, " sources"]
    influence: Influence
    effect: Float[Tensor, " sources"]
    outputs: LinearOutputs
    values: Float[Tensor, " outputs"]
    "what each output reads, by the frozen map"
    change: Float[Tensor, " outputs"] | None
    "of them from clean to patch"
    clean: float
    "the metric"
    patch: float | None
    right: float | None
    "1 where the right answer is preferred, else 0; None where prompts name none"
    outliers: dict[str, int]
    "tokens that are norm outliers, by site"


@dataclass(frozen=True)
class Tracing:
    """What the first pass found; numbers of nodes are means over prompts, the largest first."""

    prompts: tuple[Traced, ...]
    influence: NodeEffects
    effects: NodeEffects

    @property
    def replacement(self) -> float:
        return _mean([traced.influence.replacement for traced in self.prompts])

    @property
    def completeness(self) -> float:
        return _mean([traced.influence.completeness for traced in self.prompts])


def trace(prompts: ReplacedPrompts, targets: int | None, report: Report) -> Tracing:
    """Influence and effect of every node, where inputs of at most `targets` features are traced."""
    found = []
    for opened in prompts:
        # Of one prompt, which may be long, its features are counted; else the prompts.
        found.append(_traced(prompts, opened, targets, report if len(prompts) == 1 else silent))
        if len(prompts) > 1:
            report("influence", len(found), len(prompts))
    names, n = prompts.names, len(found)
    keys = [traced.key for traced in found]
    return Tracing(
        tuple(found),
        _summed(names, keys, [traced.influence.of for traced in found]).ranked(n),
        _summed(names, keys, [traced.effect for traced in found]).ranked(n),
    )


def linear_effects(prompts: ReplacedPrompts, report: Report = silent) -> NodeEffects:
    """The effects of `trace` alone, the largest first: no influence is traced for them."""
    found = list(effects_by_prompt(prompts, report))
    return NodeEffects.sum(found).ranked(len(found))


def effects_by_prompt(prompts: ReplacedPrompts, report: Report = silent) -> Iterator[NodeEffects]:
    """The effects in each prompt alone, in the order of their keys."""
    for opened in prompts:
        totals = opened.model.totals(opened.outputs.together)
        to_patch = prompts.analysis.config.reference == "patch"
        patched = _patched(prompts, opened) if to_patch else None
        reference = _reference_model(prompts.analysis, patched)
        effects = changes_to(opened.model, reference).effects(totals)
        report("effects by the graph", opened.number + 1, len(prompts))
        yield _summed(prompts.names, [opened.key], [effects])


def _summed(names: Sequence[str], keys: Sequence[Tensor], values: Sequence[Tensor]) -> NodeEffects:
    parts = []
    for key, value in zip(keys, values, strict=True):
        real = key >= 0
        parts.append(NodeEffects.summed(names, key[real], value[real].double()))
    return NodeEffects.sum(parts)


def _patched(prompts: ReplacedPrompts, opened: ReplacedPrompt) -> ReplacementModel | None:
    """The patch's replacement model, where there is a patch."""
    batch = prompts.analysis.prompts.patch
    return None if batch is None else prompts.replaced(batch, opened.number)


def _reference_model(
    analysis: Analysis, patched: ReplacementModel | None
) -> ReplacementModel | None:
    """The model whose values are the reference, None for zero."""
    if analysis.config.reference != "patch":
        return None
    if patched is None:
        raise ValueError("the prompts have no patch to move nodes to: use --reference zero")
    return patched


def _traced(
    prompts: ReplacedPrompts, opened: ReplacedPrompt, targets: int | None, report: Report
) -> Traced:
    analysis, model, outputs = prompts.analysis, opened.model, opened.outputs
    influence = influence_of(
        model, outputs, targets=targets, at_once=prompts.at_once, report=report
    )
    patched = _patched(prompts, opened)
    reference = _reference_model(analysis, patched)
    totals = model.totals(outputs.together)
    row = torch.tensor([opened.number], device=model.recorded.logits.device)
    logits = model.recorded.logits[None]
    return Traced(
        key=opened.key,
        influence=influence,
        effect=changes_to(model, reference).effects(totals),
        outputs=outputs,
        values=outputs.values(model),
        change=None if patched is None else _change(analysis, outputs, opened, patched),
        clean=float(on_clean(analysis.metric, logits, row)),
        patch=(
            None
            if patched is None
            else float(on_patch(analysis.metric, patched.recorded.logits[None], row))
        ),
        right=_right(analysis, logits, row),
        outliers=_outliers(model),
    )


def _change(
    analysis: Analysis, outputs: LinearOutputs, opened: ReplacedPrompt, patched: ReplacementModel
) -> Float[Tensor, " outputs"]:
    """How each output changes from clean to patch, in the model itself."""
    if len(outputs.outputs) == 1:
        row = torch.tensor([opened.number], device=patched.recorded.logits.device)
        clean = on_clean(analysis.metric, opened.model.recorded.logits[None], row)
        return on_patch(analysis.metric, patched.recorded.logits[None], row) - clean
    ids = torch.tensor(list(dict.fromkeys(analysis.prompts.answer_ids[0])))
    logits = patched.recorded.logits - opened.model.recorded.logits
    return logits[ids.to(logits.device)] - logits.mean()


def _right(analysis: Analysis, logits: Tensor, row: Tensor) -> float | None:
    if not all(analysis.prompts.answer_ids):
        return None
    return float(preference_of(analysis.prompts)(logits, row) > 0)


def _outliers(model: ReplacementModel) -> dict[str, int]:
    mask = torch.ones(1, model.n_tokens, dtype=torch.bool, device=model.recorded.embed.device)
    counts = {
        f"mlp_out.{layer}": int(is_outlier_in_prompt(x[None], mask).sum())
        for layer, x in enumerate(model.recorded.mlp_out)
    }
    return {name: count for name, count in counts.items() if count}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
